/* The first token of llama.cpp's answer. Usage: llama-chat LIBRARIES MODEL THREADS
 * Prints one line when it is ready, then for each line read (a question) the seconds from the question to the most
 * probable first token of an answer, in SmolLM2's own chat format, on an empty cache. */
#include "llama-peer.h"

enum { LINE = 2048 };

static llama_token first_token(struct llama_context *context, const struct llama_vocab *vocab, const char *prompt) {
    llama_token tokens[CONTEXT];
    int count = llama_tokenize(vocab, prompt, strlen(prompt), tokens, CONTEXT, false, true);
    if (count <= 0 || llama_decode(context, llama_batch_get_one(tokens, count)) != 0) {
        fputs("llama.cpp cannot take the question\n", stderr);
        exit(1);
    }
    const float *logits = llama_get_logits_ith(context, -1);
    llama_token best = 0;
    for (llama_token i = 1; i < llama_vocab_n_tokens(vocab); i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    struct llama_context *context = open_model(argv);
    if (!context) return 1;
    say_ready();
    static char line[LINE], prompt[LINE + 128];
    while (fgets(line, LINE, stdin)) {
        line[strcspn(line, "\n")] = 0;
        double start = now();
        snprintf(prompt, sizeof prompt, "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n", line);
        llama_memory_clear(llama_get_memory(context), true);
        first_token(context, llama_model_get_vocab(llama_get_model(context)), prompt);
        printf("%.9f\n", now() - start);
        fflush(stdout);
    }
}
