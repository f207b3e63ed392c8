/* The first token of llama.cpp's answer. Usage: llama-chat LIBRARIES MODEL THREADS
 * Prints one line when it is ready, then for each line read (a question) the seconds from the question to the most
 * probable first token of an answer, in SmolLM2's own chat format, on an empty cache. */
#include <ggml-backend.h>
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXT = 1024, LINE = 2048 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

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
    llama_log_set(quiet, NULL);
    ggml_backend_load_all_from_path(argv[1]);
    struct llama_model *model = llama_model_load_from_file(argv[2], llama_model_default_params());
    if (!model) return 1;
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT;
    params.n_threads = params.n_threads_batch = atoi(argv[3]);
    params.no_perf = true;
    struct llama_context *context = llama_init_from_model(model, params);
    if (!context) return 1;
    printf("{\"version\": \"%s\"}\n", llama_print_system_info());
    fflush(stdout);
    static char line[LINE], prompt[LINE + 128];
    while (fgets(line, LINE, stdin)) {
        line[strcspn(line, "\n")] = 0;
        double start = now();
        snprintf(prompt, sizeof prompt, "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n", line);
        llama_memory_clear(llama_get_memory(context), true);
        first_token(context, llama_model_get_vocab(model), prompt);
        printf("%.9f\n", now() - start);
        fflush(stdout);
    }
}
