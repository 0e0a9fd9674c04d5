/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The routes where the serving's worker is held up on purpose: what a stream, /health and a client
 * that leaves see of that.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* cmocka needs the headers above */
#include <cmocka.h>

#include "app/server/http.h"
#include "app/server/routes.h"

static myelin_model *model;
static myelin_serving *serving;
static http_server *server;
static routes *served;
static pthread_t loop;

/* A request of our own, whose callback keeps the worker until it is let go. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool holding, let_go;

static bool hold(void *user, const myelin_piece *piece) {
    (void)user;
    (void)piece;
    pthread_mutex_lock(&mutex);
    holding = true;
    pthread_cond_broadcast(&changed);
    while (!let_go)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
    return false;
}

static void hold_worker(void) {
    static const char prompt[] = "Once";
    myelin_generation_options options;
    myelin_submission submission;
    myelin_error error;
    myelin_generation_options_init(&options);
    myelin_submission_init(&submission);
    myelin_request request = {
        .prompt = prompt, .prompt_length = sizeof prompt - 1, .options = &options};
    submission.request = &request;
    submission.emit = hold;
    holding = let_go = false;
    assert_int_equal(myelin_serving_submit(serving, &submission, NULL, &error), MYELIN_OK);
    pthread_mutex_lock(&mutex);
    while (!holding)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

static void release_worker(void) {
    pthread_mutex_lock(&mutex);
    let_go = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

/* ---- The server ---- */

static void handle(void *user, http_exchange *exchange, const http_request *request) {
    (void)user;
    routes_handle(served, exchange, request);
}

static void *run(void *argument) {
    myelin_error *error = argument;
    (void)http_server_run(server, error);
    return NULL;
}

static int start(void **state) {
    static const char *const names[] = {"demo"};
    static myelin_error error;
    http_options http;
    routes_options options;
    (void)state;
    http_options_init(&http);
    http.port = 0;
    http.handler = handle;
    routes_options_init(&options);
    options.names = names;
    options.num_names = 1;
    options.comment_seconds = 0.5;
    options.stuck_seconds = 0.5;
    if (http_server_create(&server, &http, &error) != MYELIN_OK ||
        routes_create(&served, &options, server, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    return pthread_create(&loop, NULL, run, &error);
}

static int stop(void **state) {
    (void)state;
    http_server_stop(server, 5);
    pthread_join(loop, NULL);
    routes_stop(served);
    myelin_serving_free(serving);
    http_server_free(server);
    routes_free(served);
    myelin_model_close(model);
    return 0;
}

static void set_model(void *argument) {
    (void)argument;
    routes_set_model(served, model, serving);
}

/* ---- A client ---- */

static int send_request(const char *method, const char *path, const char *body) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)http_server_port(server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char text[1024];
    int size = snprintf(text, sizeof text,
                        "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                        "Content-Length: %zu\r\n\r\n%s",
                        method, path, strlen(body), body);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 60};
    assert_true(client >= 0 && size > 0 && (size_t)size < sizeof text);
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(client, text, (size_t)size, 0), size);
    return client;
}

/* Reads until `wanted` has come, or else the end; true when it has. */
static bool read_until(int client, const char *wanted) {
    static char text[1 << 20];
    size_t length = 0;
    text[0] = '\0';
    while (strstr(text, wanted) == NULL && length < sizeof text - 1) {
        ssize_t count = recv(client, text + length, sizeof text - 1 - length, 0);
        if (count <= 0)
            return false;
        length += (size_t)count;
        text[length] = '\0';
    }
    return strstr(text, wanted) != NULL;
}

static bool answers(const char *path, const char *wanted) {
    int client = send_request("GET", path, "");
    bool found = read_until(client, wanted);
    close(client);
    return found;
}

static bool comes_to_answer(const char *path, const char *wanted) {
    const struct timespec pause = {.tv_nsec = 50000000};
    for (int i = 0; i < 1200; i++) {
        if (answers(path, wanted))
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"48 + 0\"}],"
                           "\"temperature\":0,\"stream\":true}";

/* ---- What is tested, in this order ---- */

static void test_loading(void **state) {
    (void)state;
    assert_true(answers("/health", "HTTP/1.1 503 "));
    assert_true(answers("/v1/models", "\"loading\""));
    assert_true(answers("/version", "HTTP/1.1 200 "));
    assert_true(answers("/metrics", "myelin_http_responses_total"));
    int client = send_request("POST", "/v1/chat/completions", body);
    assert_true(read_until(client, "HTTP/1.1 503 "));
    close(client);
    myelin_error error;
    if (myelin_model_open(&model, MYELIN_DEMO_MODEL, NULL, &error) != MYELIN_OK ||
        myelin_serving_start(&serving, model, NULL, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    http_server_post(server, set_model, NULL);
    assert_true(comes_to_answer("/health", "HTTP/1.1 200 "));
}

static void test_a_worker_that_is_held_up(void **state) {
    (void)state;
    hold_worker();
    int client = send_request("POST", "/v1/chat/completions", body);
    assert_true(read_until(client, "\n: "));
    assert_true(comes_to_answer("/health", "\"stuck\""));
    release_worker();
    assert_true(read_until(client, "data: [DONE]"));
    close(client);
    assert_true(comes_to_answer("/health", "HTTP/1.1 200 "));
}

static void test_a_client_that_leaves(void **state) {
    (void)state;
    myelin_serving_stats before = {.size = sizeof before}, stats = {.size = sizeof stats};
    hold_worker();
    myelin_serving_get_stats(serving, &before);
    int client = send_request("POST", "/v1/chat/completions", body);
    assert_true(read_until(client, "data: "));
    close(client);
    assert_true(comes_to_answer("/metrics", "code=\"499\"} 1\n"));
    release_worker();
    for (int i = 0; i < 1200; i++) {
        const struct timespec pause = {.tv_nsec = 50000000};
        myelin_serving_get_stats(serving, &stats);
        if (stats.running + stats.waiting == 0)
            break;
        nanosleep(&pause, NULL);
    }
    assert_int_equal(stats.running + stats.waiting, 0);
    assert_int_equal(stats.requests_cancelled, before.requests_cancelled + 2); /* and the holder */
}

static void begin_drain(void *argument) {
    routes_begin_drain(argument);
}

static void test_draining(void **state) {
    (void)state;
    http_server_post(server, begin_drain, served);
    assert_true(comes_to_answer("/health", "\"draining\""));
    int client = send_request("POST", "/v1/chat/completions", body);
    assert_true(read_until(client, "data: [DONE]")); /* what comes is answered still */
    close(client);
    myelin_serving_drain(serving, 0);
    client = send_request("POST", "/v1/chat/completions", body);
    assert_true(read_until(client, "Retry-After: 1\r\n"));
    close(client);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading),
        cmocka_unit_test(test_a_worker_that_is_held_up),
        cmocka_unit_test(test_a_client_that_leaves),
        cmocka_unit_test(test_draining),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
