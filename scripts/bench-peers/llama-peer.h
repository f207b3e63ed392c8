/* What the programs on llama.cpp share: a model opened with libraries, file and threads of the command line. */
#include <ggml-backend.h>
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXT = 1024 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void quiet(enum ggml_log_level level, const char *text, void *data) {
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

/* NULL where it cannot be opened. */
static struct llama_context *open_model(char **arguments) {
    llama_log_set(quiet, NULL);
    ggml_backend_load_all_from_path(arguments[1]);
    struct llama_model *model = llama_model_load_from_file(arguments[2], llama_model_default_params());
    if (!model) return NULL;
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT;
    params.n_threads = params.n_threads_batch = atoi(arguments[3]);
    params.no_perf = true;
    return llama_init_from_model(model, params);
}

static void say_ready(void) {
    printf("{\"version\": \"%s\"}\n", llama_print_system_info());
    fflush(stdout);
}
