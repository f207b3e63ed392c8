/* Times llama.cpp on one GGUF file. Usage: llama LIBRARIES MODEL THREADS
 * Prints one line when it is ready, then for each line read ("prefill N" or "decode N") the seconds
 * that it took: N tokens in one batch on an empty cache, or N tokens one by one after 128. */
#include <ggml-backend.h>
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXT = 1024, PAST = 128 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static void run(struct llama_context *context, llama_token *tokens, int count) {
    if (llama_decode(context, llama_batch_get_one(tokens, count)) != 0) {
        fputs("llama_decode failed\n", stderr);
        exit(1);
    }
    llama_synchronize(context);
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
    llama_token tokens[CONTEXT];
    for (int i = 0; i < CONTEXT; i++) tokens[i] = 1000 + i * 37 % 20000;
    printf("{\"version\": \"%s\"}\n", llama_print_system_info());
    fflush(stdout);
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
