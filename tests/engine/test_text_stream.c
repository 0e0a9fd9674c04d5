/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text as it becomes certain, against a slow reference: random tokens (characters split between
 * them), random stop strings, released at random times.
 */
#include <string.h>

#include "base/utf8.h"
#include "engine/support.h"
#include "engine/text_stream.h"

enum { MOST_TOKENS = 60, MOST_STOPS = 4, LONGEST_TOKEN = 64, STOP_SIZE = 64 };

static mln_tokenizer *tokenizer;
static int32_t byte_ids[256]; /* the token of one byte */

static int open_tokenizer(void **state) {
    (void)state;
    if (mln_tokenizer_open(&tokenizer, MYELIN_DEMO_MODEL, NULL))
        return 1;
    for (int32_t id = 0; id < mln_tokenizer_size(tokenizer); id++) {
        const char *bytes;
        size_t length;
        if (mln_tokenizer_bytes(tokenizer, id, &bytes, &length) && length == 1)
            byte_ids[(unsigned char)*bytes] = id;
    }
    return 0;
}

static int close_tokenizer(void **state) {
    (void)state;
    mln_tokenizer_free(tokenizer);
    return 0;
}

/* A text of tokens and what should come of it. */
typedef struct scene {
    int32_t ids[MOST_TOKENS];
    int32_t count;
    char stop_text[MOST_STOPS][STOP_SIZE];
    const char *stops[MOST_STOPS];
    size_t num_stops;
    mln_buffer certain[MOST_TOKENS + 2]; /* text after each push; [count + 1]: after the end */
    int32_t last;  /* which of certain[] has the end of the text: where a stop string occurred */
    size_t length; /* of the final text, the beginning of certain[last] */
} scene;

/* Bytes of characters of 1 to 4 bytes, whole words, control tokens, broken UTF-8, spaces. */
static void add_random(scene *s, uint32_t *random) {
    static const char *const texts[] = {"a", " ", "é", "世", "😀", "\n", "ab", "\xF0\x9F", "\xE4"};
    const char *text = texts[next_random(random, COUNT(texts))];
    switch (next_random(random, 4)) {
    case 0:
        s->ids[s->count++] = (int32_t)next_random(random, 6282);
        break;
    case 1:
        s->ids[s->count++] = byte_ids[next_random(random, 256)];
        break;
    default:
        for (; *text && s->count < MOST_TOKENS; text++)
            s->ids[s->count++] = byte_ids[(unsigned char)*text];
    }
}

static bool is_boundary(const mln_buffer *text, size_t at) {
    return at == text->length || ((unsigned char)text->data[at] & 0xC0) != 0x80;
}

/* Part of the text, of a few bytes, cut at characters and maybe changed at its end. */
static void make_stop(scene *s, uint32_t *random) {
    const mln_buffer *text = &s->certain[s->count + 1];
    if (text->length == 0)
        return;
    size_t begin = next_random(random, (uint32_t)text->length);
    size_t end = begin + 1 + next_random(random, 9);
    while (!is_boundary(text, begin))
        begin--;
    end = end < text->length ? end : text->length;
    while (!is_boundary(text, end))
        end++;
    if (memchr(text->data + begin, '\0', end - begin) || end - begin > STOP_SIZE - 2)
        return;
    char *stop = s->stop_text[s->num_stops];
    memcpy(stop, text->data + begin, end - begin);
    stop[end - begin] = '\0';
    if (next_random(random, 3) == 0)
        strcat(stop, "~"); /* does not occur, but its beginning does */
    s->stops[s->num_stops++] = stop;
}

/* The certain text after each push, by decoding all tokens so far from scratch. */
static void decode_all(scene *s) {
    for (int32_t n = 0; n <= s->count + 1; n++) {
        mln_detokenizer detokenizer = {0};
        mln_buffer *text = &s->certain[n];
        assert_true(mln_buffer_reserve(text, 0));
        for (int32_t i = 0; i < n && i < s->count; i++)
            mln_detokenizer_push(&detokenizer, tokenizer, s->ids[i], true, text, NULL);
        if (n > s->count)
            mln_detokenizer_flush(&detokenizer, text, NULL);
        text->data[text->length] = '\0';
    }
}

/* Where the first stop string begins, or the text's length. */
static size_t find_stop(const scene *s, const mln_buffer *text) {
    size_t first = text->length;
    for (size_t i = 0; i < s->num_stops; i++) {
        char *hit = memmem(text->data, text->length, s->stops[i], strlen(s->stops[i]));
        if (hit && (size_t)(hit - text->data) < first)
            first = (size_t)(hit - text->data);
    }
    return first;
}

static void make_scene(scene *s, uint32_t *random) {
    *s = (scene){0};
    int32_t wanted = 1 + (int32_t)next_random(random, MOST_TOKENS - 1);
    while (s->count < wanted)
        add_random(s, random);
    decode_all(s);
    for (uint32_t i = next_random(random, MOST_STOPS + 1); i > 0; i--)
        make_stop(s, random);
    while (s->last <= s->count && find_stop(s, &s->certain[s->last]) == s->certain[s->last].length)
        s->last++;
    s->length = find_stop(s, &s->certain[s->last]);
}

static void free_scene(scene *s) {
    for (int32_t n = 0; n <= s->count + 1; n++)
        mln_buffer_free(&s->certain[n]);
}

/* How much of the certain text may be shown: all but what could begin a stop string. */
static size_t safe_length(const scene *s, const mln_buffer *text) {
    for (size_t begin = 0; begin < text->length; begin++)
        for (size_t i = 0; i < s->num_stops; i++) {
            size_t left = text->length - begin;
            if (left < strlen(s->stops[i]) && memcmp(text->data + begin, s->stops[i], left) == 0)
                return begin;
        }
    return text->length;
}

/* Checks one release after `pushes` pushes that did not stop; returns the new end. */
static size_t check_release(mln_text_stream *stream, const scene *s, int32_t pushes, size_t shown) {
    const mln_buffer *text = &s->certain[pushes];
    const char *piece;
    size_t length = mln_text_stream_release(stream, &piece), end = shown + length;
    size_t safe = safe_length(s, text);
    assert_true(end <= s->length);
    assert_memory_equal(piece, text->data + shown, length);
    assert_int_equal(mln_utf8_valid_prefix(piece, length), length);
    if (stream->stable && shown > 0) { /* as much as ends before whitespace */
        size_t expected = safe > shown ? safe : shown;
        while (expected > shown &&
               !(text->data[expected] && strchr(" \t\n\v\f\r", text->data[expected])))
            expected--;
        assert_int_equal(end, expected);
    } else {
        assert_int_equal(end, safe > shown ? safe : shown);
    }
    return end;
}

static void play(const scene *s, bool stable, uint32_t *random) {
    mln_text_stream stream;
    bool stopped = false;
    size_t shown = 0, often = 1 + next_random(random, 6);
    assert_int_equal(mln_text_stream_begin(&stream, tokenizer, LONGEST_TOKEN, s->count, s->stops,
                                           s->num_stops, stable, NULL),
                     MYELIN_OK);
    size_t capacity = stream.text.capacity;
    for (int32_t n = 1; n <= s->count && !stopped; n++) {
        assert_int_equal(mln_text_stream_push(&stream, s->ids[n - 1], &stopped, NULL), MYELIN_OK);
        assert_int_equal(stopped, n == s->last);
        if (!stopped && next_random(random, (uint32_t)often) == 0)
            shown = check_release(&stream, s, n, shown);
    }
    assert_int_equal(mln_text_stream_finish(&stream, &stopped, NULL), MYELIN_OK);
    assert_int_equal(stopped, s->last > s->count && s->length < s->certain[s->last].length);
    const char *piece;
    size_t length = mln_text_stream_release(&stream, &piece);
    assert_int_equal(shown + length, s->length);
    assert_memory_equal(piece, s->certain[s->last].data + shown, length);
    assert_int_equal(piece[length], '\0');
    assert_int_equal(stream.text.length, s->length);
    assert_int_equal(mln_text_stream_release(&stream, &piece), 0);
    assert_int_equal(stream.text.capacity, capacity);
    mln_text_stream_free(&stream);
}

static void test_random_scenes(void **state) {
    (void)state;
    uint32_t random = 4;
    int32_t stopped = 0;
    for (int round = 0; round < 4000; round++) {
        scene s;
        make_scene(&s, &random);
        stopped += s.last <= s.count;
        play(&s, false, &random);
        play(&s, true, &random);
        free_scene(&s);
    }
    assert_true(stopped > 1000 && stopped < 3500); /* the scenes are worth playing */
}

/* Pushes one byte token after another and checks what each lets out ("|" between releases). */
static void check_pieces(const char *text, const char *const *stops, size_t num_stops, bool stable,
                         const char *expected) {
    mln_text_stream stream;
    char found[256] = "";
    bool stopped = false;
    assert_int_equal(mln_text_stream_begin(&stream, tokenizer, LONGEST_TOKEN, 100, stops, num_stops,
                                           stable, NULL),
                     MYELIN_OK);
    for (; !stopped; text++) {
        if (*text) {
            mln_text_stream_push(&stream, byte_ids[(unsigned char)*text], &stopped, NULL);
        } else {
            mln_text_stream_finish(&stream, &stopped, NULL);
            stopped = true;
        }
        const char *piece;
        size_t length = mln_text_stream_release(&stream, &piece);
        strncat(found, piece, length);
        strcat(found, length ? "|" : "");
    }
    assert_string_equal(found, expected);
    mln_text_stream_free(&stream);
}

static void test_pieces(void **state) {
    (void)state;
    const char *const stop[] = {"\n\n", "END"};
    check_pieces("a\nb\n\nc", stop, 2, false, "a|\nb|");
    check_pieces("a\nb\n", stop, 2, false, "a|\nb|\n|");
    check_pieces("EEND", stop, 2, false, "E|");
    check_pieces("ENE", stop, 2, false, "EN|E|");
    check_pieces("é😀\xF0\x9F", NULL, 0, false, "é|😀|\xEF\xBF\xBD|");
    check_pieces("The cat  sat", NULL, 0, true, "T|he| cat| | sat|");
    check_pieces("  x", NULL, 0, true, " | x|");
    check_pieces("END", stop, 2, true, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_scenes),
        cmocka_unit_test(test_pieces),
    };
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
