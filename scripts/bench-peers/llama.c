/* Times llama.cpp on one GGUF file. Usage: llama LIBRARIES MODEL THREADS
 * Prints one line when it is ready, then for each line read ("prefill N" or "decode N") the seconds
 * that it took: N tokens in one batch on an empty cache, or N tokens one by one after 128. */
#include "llama-peer.h"

enum { PAST = 128 };

static void run(struct llama_context *context, llama_token *tokens, int count) {
    if (llama_decode(context, llama_batch_get_one(tokens, count)) != 0) {
        fputs("llama_decode failed\n", stderr);
        exit(1);
    }
    llama_synchronize(context);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    struct llama_context *context = open_model(argv);
    if (!context) return 1;
    llama_token tokens[CONTEXT];
    for (int i = 0; i < CONTEXT; i++) tokens[i] = 1000 + i * 37 % 20000;
    say_ready();
    char kind[16];
    int count;
    while (scanf("%15s %d", kind, &count) == 2) {
        llama_memory_clear(llama_get_memory(context), true);
        double start;
        if (strcmp(kind, "prefill") == 0) {
            start = now();
            run(context, tokens, count);
        } else {
            run(context, tokens, PAST);
            start = now();
            for (int i = 0; i < count; i++) run(context, tokens + PAST + i, 1);
        }
        printf("%.9f\n", now() - start);
        fflush(stdout);
    }
}
