/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Myelin: text generation with Qwen3 dense models. This header is all an application includes.
 *
 *     myelin_model *model;
 *     myelin_error error;
 *     if (myelin_model_open(&model, "path/to/Qwen3-0.6B", NULL, &error))
 *         puts(error.message);
 *
 * Conventions
 *   - A fallible function returns a myelin_status (0 is fine) and fills *error, which may be NULL.
 *   - Options are structs with an _init function that sets every default; NULL means all defaults.
 *   - Strings are UTF-8. Text with a length may hold NUL; text the library returns also ends in
 * one.
 *   - Output pointers are NULL, and results empty, after a failure.
 *   - The library prints nothing, reads no environment variable, and never exits or aborts.
 *   - Same input, same tokens: results do not depend on the number of threads, on what else runs,
 *     on streaming, on sync, or on whether a prefix came from a cache.
 * Threads
 *   A model, a tokenizer and a checkpoint are immutable once open: any number of threads may use
 * one at once. A session belongs to one thread at a time.
 */
#ifndef MYELIN_MYELIN_H
#define MYELIN_MYELIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/config.h"
#include "myelin/status.h"
#include "myelin/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MYELIN_VERSION_MAJOR 0
#define MYELIN_VERSION_MINOR 1
#define MYELIN_VERSION_PATCH 0

/* "0.1.0": of the library that runs, which may be newer than the header. */
MYELIN_API const char *myelin_version(void);

/* Releases memory this header says to release so. Accepts NULL. */
MYELIN_API void myelin_free(void *memory);

/* ---- Tokenizer ---------------------------------------------------------------------------------
 */

typedef struct myelin_tokenizer myelin_tokenizer;

/* Reads tokenizer.json (and nothing else) of a checkpoint directory. */
MYELIN_API myelin_status myelin_tokenizer_open(myelin_tokenizer **tokenizer, const char *directory,
                                               myelin_error *error);
/* Accepts NULL. Not for a tokenizer that belongs to a model. */
MYELIN_API void myelin_tokenizer_close(myelin_tokenizer *tokenizer);

/* One more than the highest id it knows. */
MYELIN_API int32_t myelin_tokenizer_size(const myelin_tokenizer *tokenizer);

/*
 * Text to ids: *ids is an array of *count, released with myelin_free(). The written form of a
 * control token (<|im_end|>) becomes that token when `parse_special`, else it stays ordinary text.
 * Ill-formed UTF-8 is MYELIN_ERROR_ARGUMENT with the byte in error->offset.
 */
MYELIN_API myelin_status myelin_tokenize(const myelin_tokenizer *tokenizer, const char *text,
                                         size_t length, bool parse_special, int32_t **ids,
                                         size_t *count, myelin_error *error);

/*
 * Ids to text: *text, released with myelin_free(), has *length bytes and a NUL after them. Bytes
 * that form no character become U+FFFD. With skip_special control tokens leave no text.
 */
MYELIN_API myelin_status myelin_detokenize(const myelin_tokenizer *tokenizer, const int32_t *ids,
                                           size_t count, bool skip_special, char **text,
                                           size_t *length, myelin_error *error);

/*
 * The bytes one id stands for, maybe a part of a character only; no NUL follows, and they live as
 * long as the tokenizer. *special (may be NULL) tells whether it is a control token. False when no
 * id is that high.
 */
MYELIN_API bool myelin_token_bytes(const myelin_tokenizer *tokenizer, int32_t id,
                                   const char **bytes, size_t *length, bool *special);

/* ---- Checkpoint: looking without loading -------------------------------------------------------
 */

typedef struct myelin_checkpoint myelin_checkpoint;

/* One weight of the model, as it lies in the files. Strings live as long as the checkpoint. */
typedef struct myelin_tensor_info {
    const char *name;
    int32_t dtype; /* a myelin_dtype */
    int32_t rank;
    int64_t shape[MYELIN_TENSOR_MAX_RANK]; /* logical shape, also when quantised */
    int32_t bits, group_size;              /* AFFINE only, else 0 */
    const char *file;                      /* file name within the directory */
    uint64_t offset;                       /* first byte of its data in that file */
    uint64_t bytes;                        /* in the files, scales and biases included */
} myelin_tensor_info;

/* Opens and checks a checkpoint directory; reads headers, no weights. */
MYELIN_API myelin_status myelin_checkpoint_open(myelin_checkpoint **checkpoint,
                                                const char *directory, myelin_error *error);
MYELIN_API void myelin_checkpoint_close(myelin_checkpoint *checkpoint); /* accepts NULL */
MYELIN_API const myelin_config *myelin_checkpoint_config(const myelin_checkpoint *checkpoint);
MYELIN_API size_t myelin_checkpoint_num_tensors(const myelin_checkpoint *checkpoint);
/* index is 0 .. num_tensors-1, in the model's order. */
MYELIN_API void myelin_checkpoint_tensor(const myelin_checkpoint *checkpoint, size_t index,
                                         myelin_tensor_info *info);
/* Bytes the weights take in memory after a load-time cast to dtype (AUTO: none). */
MYELIN_API uint64_t myelin_checkpoint_weight_bytes(const myelin_checkpoint *checkpoint,
                                                   myelin_dtype dtype);
/*
 * Bytes a session of max_len tokens takes beside the weights: KV cache and scratch memory. 0 when
 * max_len is out of range.
 */
MYELIN_API uint64_t myelin_checkpoint_session_bytes(const myelin_checkpoint *checkpoint,
                                                    int32_t max_len);

/* ---- Quantising --------------------------------------------------------------------------------
 */

typedef struct myelin_quantize_options {
    size_t size;              /* set by _init */
    int32_t bits;             /* 4; or 8 */
    int32_t group_size;       /* 64; or 32 or 128 */
    myelin_dtype scale_dtype; /* AUTO: f16 for f16 weights, else bf16 */
    /* Called as dense weights are read. Return false to cancel. May be NULL. */
    bool (*progress)(void *user, uint64_t bytes_done, uint64_t bytes_total);
    void *user;
} myelin_quantize_options;

MYELIN_API void myelin_quantize_options_init(myelin_quantize_options *options);

/*
 * Writes a dense checkpoint directory as an MLX quantised one ("affine" mode, as mlx-lm writes and
 * opens): matrices whose rows are whole groups are quantised, norms stay as they are, tokenizer and
 * templates are copied. `destination` must be new or an empty directory; after a failure, or when
 * the program dies before the end, it does not exist.
 */
MYELIN_API myelin_status myelin_checkpoint_quantize(const char *source, const char *destination,
                                                    const myelin_quantize_options *options,
                                                    myelin_error *error);

/* ---- Model -------------------------------------------------------------------------------------
 */

typedef struct myelin_model myelin_model;

typedef enum myelin_device {
    MYELIN_DEVICE_AUTO = 0,
    MYELIN_DEVICE_CPU = 1,
    MYELIN_DEVICE_CUDA = 2
} myelin_device;

typedef struct myelin_model_options {
    size_t size; /* set by _init */
    myelin_device device;
    myelin_dtype dtype;   /* cast of dense weights while loading; AUTO: as stored */
    myelin_fusion fusion; /* AUTO: the highest there is */
    int32_t threads;      /* 0: one for each CPU this process may use */
    bool chat;            /* true: a checkpoint without a usable chat template does not open */
    /*
     * Called while weights are read, never two calls at once, but from any thread. Return false to
     * cancel: opening then fails with MYELIN_ERROR_CANCELLED. May be NULL.
     */
    bool (*progress)(void *user, uint64_t bytes_done, uint64_t bytes_total);
    /*
     * Called with a sentence worth showing a person, for as long as the model is open, from the
     * thread that makes the call it is about. May be NULL.
     */
    void (*warning)(void *user, const char *message);
    void *user;
    /*
     * Path of a shared object that implements myelin/plugin.h and then computes, whatever `device`
     * says; its code runs in this process. NULL: the built-in choice. Borrowed during the call.
     */
    const char *plugin;
    myelin_pack pack; /* of bfloat16 weights; the tokens are the same */
    /*
     * Of keys and values in sessions and servings of the model. What the model computes with does
     * not offer the type: MYELIN_ERROR_UNSUPPORTED; a device chosen by itself is then the CPU.
     */
    myelin_cache_type cache_type;
    /*
     * true: beside dense weights keep an 8-bit copy of the LM head, by which greedy tokens are
     * found without reading all of it. The tokens are the same; loading takes longer.
     */
    bool shortlist;
    /*
     * GPUs of this machine to spread the model over (tensor parallelism): the first so many, which
     * must divide num_key_value_heads. 0 and 1: one; more takes NVIDIA's NCCL and, as `device`,
     * AUTO or CUDA. A program that asks for more than 2 sets NCCL_NVLS_ENABLE=0 in its environment
     * before, as the command does, unless it means NCCL to use NVLink multicast.
     */
    int32_t tensor_parallel;
    myelin_activations activations; /* a wish; myelin_model_info says what came of it */
} myelin_model_options;

MYELIN_API void myelin_model_options_init(myelin_model_options *options);

/*
 * The name of the plug-in that would run the checkpoint with these options, cut to `size` bytes
 * with its NUL; a failure is the one that opening the model would meet.
 */
MYELIN_API myelin_status myelin_checkpoint_plugin(const myelin_checkpoint *checkpoint,
                                                  const myelin_model_options *options, char *name,
                                                  size_t size, myelin_error *error);
/* What myelin_checkpoint_session_bytes() says, with what these options choose in its place. */
MYELIN_API myelin_status myelin_checkpoint_plan_session(const myelin_checkpoint *checkpoint,
                                                        const myelin_model_options *options,
                                                        int32_t max_len, uint64_t *bytes,
                                                        myelin_error *error);

/*
 * Opens a checkpoint directory and loads its weights. A directory without tokenizer.json opens too;
 * then only the functions that take ids work.
 */
MYELIN_API myelin_status myelin_model_open(myelin_model **model, const char *directory,
                                           const myelin_model_options *options,
                                           myelin_error *error);
/*
 * A model of a published shape ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-14b",
 * "qwen3-32b") with made-up weights and no tokenizer, for measuring: bits 0 is dense bfloat16, 4 or
 * 8 MLX affine in groups of 64.
 */
MYELIN_API myelin_status myelin_model_open_synthetic(myelin_model **model, const char *shape,
                                                     int32_t bits,
                                                     const myelin_model_options *options,
                                                     myelin_error *error);
/* Accepts NULL. Sessions of the model must be closed before. */
MYELIN_API void myelin_model_close(myelin_model *model);

typedef struct myelin_model_info {
    size_t size;        /* set by the caller to sizeof(myelin_model_info) */
    const char *plugin; /* its name; valid while the model is open */
    int32_t threads;
    uint64_t weight_bytes;
    double load_ms;
    myelin_fusion max_fusion; /* highest rung there is for this model, whichever it was opened at */
    int32_t step_tokens; /* tokens of one step, prompts included, unless others are asked for */
    myelin_pack pack;    /* of bfloat16 weights: LOSSLESS or NONE, AUTO when that is not known */
    uint64_t held_bytes; /* that the weights take as they are laid out; 0: not known */
    myelin_activations activations; /* what weights are multiplied with; F32 also if not known */
} myelin_model_info;

MYELIN_API const myelin_config *myelin_model_config(const myelin_model *model);
/* The model's tokenizer, or NULL when its directory has none. Lives as long as the model. */
MYELIN_API const myelin_tokenizer *myelin_model_tokenizer(const myelin_model *model);
MYELIN_API void myelin_model_get_info(const myelin_model *model, myelin_model_info *info);
/*
 * Products of a weight and an activation, summed, that this processor could make a second with the
 * model's threads and its kind of weights if it waited for nothing: what reading prompts is limited
 * by. Measured during the call, in about 100 ms; 0 when what runs the model has no such measure.
 */
MYELIN_API double myelin_model_peak(const myelin_model *model);
/* What myelin_checkpoint_session_bytes() says, of an open model. */
MYELIN_API uint64_t myelin_model_session_bytes(const myelin_model *model, int32_t max_len);

/* ---- Conversations ------------------------------------------------------------------------------
 */

/*
 * How a checkpoint turns a conversation into a prompt: its chat_template.jinja, else the
 * chat_template of its tokenizer_config.json, rendered as transformers renders it.
 */
typedef struct myelin_chat_template myelin_chat_template;

/* Reads these two files and nothing else. MYELIN_ERROR_NOT_FOUND when there is no template. */
MYELIN_API myelin_status myelin_chat_template_open(myelin_chat_template **chat_template,
                                                   const char *directory, myelin_error *error);
MYELIN_API void myelin_chat_template_close(myelin_chat_template *chat_template); /* accepts NULL */

/* The template's variable enable_thinking. */
typedef enum myelin_thinking {
    MYELIN_THINKING_AUTO = 0, /* not set: the template decides */
    MYELIN_THINKING_ON = 1,
    MYELIN_THINKING_OFF = 2
} myelin_thinking;

typedef struct myelin_chat_options {
    size_t size;                /* set by _init */
    bool add_generation_prompt; /* true: end where the assistant's answer begins */
    myelin_thinking thinking;
    const char *tools;     /* JSON array of tool descriptions, or NULL */
    const char *variables; /* JSON object of further template variables, or NULL */
    bool parse_special;    /* false: <|im_end|> inside a message or tool stays text. true, for
                              conversations that nobody else wrote: it is that token */
} myelin_chat_options;

MYELIN_API void myelin_chat_options_init(myelin_chat_options *options);

/*
 * Renders a conversation: messages is a JSON array of objects with "role", "content", and what else
 * the template knows (tool_calls, reasoning_content, ...). *text, released with myelin_free(), has
 * *length bytes and a NUL after them. What the template itself refuses is MYELIN_ERROR_ARGUMENT.
 */
MYELIN_API myelin_status myelin_chat_render(const myelin_chat_template *chat_template,
                                            const char *messages, size_t messages_length,
                                            const myelin_chat_options *options, char **text,
                                            size_t *length, myelin_error *error);

/* The model's template, or NULL when it has none that can be used. Lives as long as the model. */
MYELIN_API const myelin_chat_template *myelin_model_chat_template(const myelin_model *model);

/* A function the assistant asks to be called. */
typedef struct myelin_tool_call {
    char *name;
    char *arguments; /* JSON as the model wrote it, usually an object */
} myelin_tool_call;

/* One message of a conversation. Strings are UTF-8; the members a message does not have are NULL.
 */
typedef struct myelin_message {
    const char *role;                   /* "system", "user", "assistant", "tool" */
    const char *content;                /* NULL becomes JSON's null */
    const char *reasoning;              /* of an assistant: reasoning_content */
    const char *name;                   /* of a tool */
    const char *tool_call_id;           /* of a tool */
    const myelin_tool_call *tool_calls; /* of an assistant */
    size_t num_tool_calls;
} myelin_message;

/*
 * The JSON text of messages, as every function here that takes a conversation wants it. Arguments
 * of tool calls that are a JSON object become that object, others a string. *json, released with
 * myelin_free(), has *length bytes and a NUL after them.
 */
MYELIN_API myelin_status myelin_messages_json(const myelin_message *messages, size_t count,
                                              char **json, size_t *length, myelin_error *error);

/* What a piece of an assistant's turn is. */
typedef enum myelin_turn_kind {
    MYELIN_TURN_REASONING = 0, /* text: more of the reasoning */
    MYELIN_TURN_CONTENT = 1,   /* text: more of the answer */
    MYELIN_TURN_TOOL_CALL = 2, /* a finished call; text: its arguments */
    MYELIN_TURN_WARNING = 3    /* text: why what began as a call became content */
} myelin_turn_kind;

typedef struct myelin_turn_event {
    myelin_turn_kind kind;
    const char *text; /* of `length` bytes; no NUL follows */
    size_t length;
    const char *name; /* of a tool call, NUL-terminated; else NULL */
} myelin_turn_event;

/*
 * An assistant's turn taken apart. Reasoning has no newlines at its ends and content after it none
 * at its beginning; tool calls are looked for only in a conversation that has tools, and one that
 * cannot be read is content as generated, with a warning. Texts are "" where there is nothing.
 */
typedef struct myelin_turn {
    char *reasoning;
    size_t reasoning_length;
    char *content;
    size_t content_length;
    myelin_tool_call *tool_calls;
    size_t num_tool_calls;
    char **warnings;
    size_t num_warnings;
} myelin_turn;

/* ---- Generation --------------------------------------------------------------------------------
 */

typedef enum myelin_sampler {
    MYELIN_SAMPLER_GREEDY = 0, /* the most likely token after penalties and bias */
    MYELIN_SAMPLER_SAMPLED = 1 /* drawn from the warped distribution */
} myelin_sampler;

/* When finished tokens are handed to the caller. The tokens are the same in every mode. */
typedef enum myelin_sync {
    MYELIN_SYNC_CHUNK = 0, /* every sync_tokens tokens */
    MYELIN_SYNC_TOKEN = 1, /* each token */
    MYELIN_SYNC_END = 2    /* all at the end */
} myelin_sync;

/* How streamed text is cut. No piece ever ends inside a UTF-8 character. */
typedef enum myelin_stream_mode {
    MYELIN_STREAM_TOKEN = 0, /* as soon as a token's text is certain */
    MYELIN_STREAM_STABLE = 1 /* only before whitespace; the first token's text at once */
} myelin_stream_mode;

typedef struct myelin_logit_bias {
    int32_t id;
    float bias; /* added to the logit; -INFINITY bans the token */
} myelin_logit_bias;

enum { MYELIN_MAX_TOP_LOGPROBS = 64, MYELIN_MAX_STOP_STRINGS = 64, MYELIN_MAX_STOP_IDS = 64 };

/*
 * A language that text is held to, compiled for one tokenizer. Immutable: any number of threads may
 * use it. Every text generated under it to its end (finish reason stop) is in the language.
 */
typedef struct myelin_constraint myelin_constraint;

/*
 * JSON text that the schema (JSON Schema 2020-12, the keywords docs/CONSTRAINTS.md lists) accepts;
 * "{}" accepts any JSON value. A keyword that is not supported, a schema that is none, and one that
 * nothing satisfies are MYELIN_ERROR_ARGUMENT, the message with the keyword and a JSON pointer to
 * it. The tokenizer outlives the constraint.
 */
MYELIN_API myelin_status myelin_constraint_from_schema(myelin_constraint **constraint,
                                                       const myelin_tokenizer *tokenizer,
                                                       const char *schema, size_t length,
                                                       myelin_error *error);
/*
 * An answer that is tool calls, in the form the chat templates of Qwen3 ask for, each to one of
 * `tools` (the JSON array given to the template) or to the one called `name` when that is not NULL,
 * with arguments that its "parameters" schema accepts. At least one call, at most one unless
 * `parallel`; with `required` false an answer without calls is free text.
 */
MYELIN_API myelin_status myelin_constraint_from_tools(myelin_constraint **constraint,
                                                      const myelin_tokenizer *tokenizer,
                                                      const char *tools, size_t length,
                                                      const char *name, bool required,
                                                      bool parallel, myelin_error *error);
MYELIN_API void myelin_constraint_free(myelin_constraint *constraint); /* accepts NULL */

/*
 * How to generate. The order in which logits are treated is transformers': repetition penalty,
 * presence and frequency penalties, bias, then, when sampled, temperature, top_k, top_p, min_p.
 */
typedef struct myelin_generation_options {
    size_t size;               /* set by _init */
    int32_t max_new_tokens;    /* 100; at least 1 */
    int32_t max_len;           /* 2048: KV budget in tokens. The cache made holds
                                  min(max_len, prompt + max_new_tokens - 1) */
    myelin_sampler sampler;    /* greedy */
    double temperature;        /* 1; > 0 */
    int32_t top_k;             /* 0: off; else the k most likely */
    double top_p;              /* 1: off; in (0, 1], the smallest set with at least this mass */
    double min_p;              /* 0: off; in [0, 1], a share of the largest probability */
    double repetition_penalty; /* 1: off; > 0; on every token of prompt and output (Keskar et al.,
                                  arXiv:1909.05858) */
    double presence_penalty;   /* 0: off; subtracted once from each token of the output so far */
    double frequency_penalty;  /* 0: off; subtracted for each time a token is in the output */
    const myelin_logit_bias *logit_bias; /* borrowed during the call */
    size_t num_logit_bias;
    uint64_t seed;                   /* 0; a sample is a function of (logits, seed, position) */
    const char *const *stop_strings; /* borrowed, UTF-8; text ends before the one completed first */
    size_t num_stop_strings;
    const int32_t *stop_ids;        /* borrowed; tokens that end the text. NULL: the model's own */
    size_t num_stop_ids;            /* with stop_ids not NULL, 0 means none */
    myelin_sync sync;               /* chunk */
    int32_t sync_tokens;            /* 0: min(max_new_tokens, 31) */
    myelin_stream_mode stream_mode; /* token */
    bool logprobs;                  /* log-probability of each token, before any treatment */
    int32_t top_logprobs;           /* 0; with logprobs: also the most likely so many */
    bool parse_special;             /* true: <|im_end|> in a prompt text is that token */
    /*
     * -1: none. Else, in a conversation, the most tokens of reasoning: then the block is closed
     * with "\n</think>\n\n", as if the model had written that, and the answer begins. 0 closes a
     * block as it opens.
     */
    int32_t thinking_budget;
    /*
     * Asked between steps, while the prompt is read too: true ends the generation as cancelled.
     * May be NULL.
     */
    bool (*cancelled)(void *cancel_user);
    void *cancel_user;
    /*
     * What the text must be, or NULL: only tokens that can still lead there are drawn. In a
     * conversation it is the answer that is constrained, after a block of reasoning. Borrowed
     * during the call, and may be shared by any number of generations.
     */
    const myelin_constraint *constraint;
    /*
     * true: draft tokens from what prompt and output hold already, where the last tokens stood
     * before, and try several in one step. The text is the same; copies of the prompt (edits, code)
     * come faster. Not with penalties or logprobs, nor where many are generated at once; takes room
     * for the logits of 11 tokens beside the session.
     */
    bool speculate;
} myelin_generation_options;

MYELIN_API void myelin_generation_options_init(myelin_generation_options *options);
/* The same, then sampler, temperature, top_k, ... as the model's generation_config.json has them.
 */
MYELIN_API void myelin_generation_options_from_model(myelin_generation_options *options,
                                                     const myelin_model *model);

typedef enum myelin_finish_reason {
    MYELIN_FINISH_STOP = 0,     /* a stop token or a stop string */
    MYELIN_FINISH_LENGTH = 1,   /* max_new_tokens, or the KV cache is full */
    MYELIN_FINISH_CANCELLED = 2 /* a callback said so */
} myelin_finish_reason;

/* "stop", "length", "cancelled". */
MYELIN_API const char *myelin_finish_reason_text(myelin_finish_reason reason);

/* Release with myelin_result_clear(); the arrays belong to it. */
typedef struct myelin_result {
    char *text;         /* what was generated, without the stop token or stop string; NULL when the
                           model has no tokenizer */
    size_t text_length; /* bytes */
    int32_t *token_ids; /* what was generated, with the stop token that ended it */
    size_t num_tokens;
    myelin_finish_reason finish_reason;
    int32_t input_tokens;  /* of the prompt, */
    int32_t cached_tokens; /* so many of which were in the session's or serving's cache already */
    double prefill_ms;     /* reading the prompt, the first token's choice included */
    double per_token_ms;   /* each token after the first, on average; 0 when there is none */
    double total_ms;
    float *logprobs;     /* [num_tokens], or NULL */
    int32_t *top_ids;    /* [num_tokens][num_top], or NULL */
    float *top_logprobs; /* [num_tokens][num_top], or NULL */
    int32_t num_top;
    myelin_turn *turn;        /* text taken apart, when the prompt was a conversation; else NULL */
    int32_t reasoning_tokens; /* so many of the tokens came inside its reasoning */
} myelin_result;

MYELIN_API void myelin_result_clear(myelin_result *result); /* leaves it zeroed; accepts that */

/* A piece of text that became certain and the tokens handed over with it. Valid during the call. */
typedef struct myelin_piece {
    const char *text; /* "" when there is none yet; NULL when the model has no tokenizer */
    size_t text_length;
    const int32_t *token_ids;
    size_t num_tokens;
    const myelin_turn_event *events; /* in a conversation: what is new in the turn, in order. */
    size_t num_events;               /* The events put together are result->turn */
    const float *logprobs;           /* [num_tokens], as in the result, or NULL */
    const int32_t *top_ids;          /* [num_tokens][num_top], or NULL */
    const float *top_logprobs;       /* [num_tokens][num_top], or NULL */
    int32_t num_top;
} myelin_piece;

/* Returns false to stop generating. */
typedef bool (*myelin_emit)(void *user, const myelin_piece *piece);

/*
 * A prompt to complete, in one of three forms. What it points to must stay valid until the
 * generation has ended.
 */
typedef struct myelin_request {
    const char *prompt; /* text, or NULL for one of the other forms */
    size_t prompt_length;
    const char *messages; /* with prompt NULL: a conversation, as myelin_chat_render() takes it */
    size_t messages_length;
    const myelin_chat_options *chat; /* for messages; NULL: defaults */
    const int32_t *prompt_ids;       /* with both NULL: token ids */
    size_t num_prompt_ids;
    const myelin_generation_options *options; /* NULL: defaults */
    void *tag;                                /* of the caller */
} myelin_request;

/*
 * Completes a prompt of any form; emit and result may be NULL. The written form of a control token
 * inside a conversation's messages or tools stays ordinary text unless chat->parse_special says
 * otherwise (options->parse_special is about prompts): only the template makes control tokens.
 */
MYELIN_API myelin_status myelin_complete(myelin_model *model, const myelin_request *request,
                                         myelin_emit emit, void *user, myelin_result *result,
                                         myelin_error *error);

/* Completes a prompt. */
MYELIN_API myelin_status myelin_run(myelin_model *model, const char *prompt,
                                    const myelin_generation_options *options, myelin_result *result,
                                    myelin_error *error);

/*
 * The same, calling emit with the pieces as they come. The pieces put together are result->text.
 * result may be NULL.
 */
MYELIN_API myelin_status myelin_stream(myelin_model *model, const char *prompt, myelin_emit emit,
                                       void *user, const myelin_generation_options *options,
                                       myelin_result *result, myelin_error *error);

/* ---- Sessions ----------------------------------------------------------------------------------
 */

/*
 * One sequence: its tokens, its KV cache and what a generation needs. A second generation continues
 * the first without reading its tokens again.
 */
typedef struct myelin_session myelin_session;

/* All memory a session of max_len tokens needs is taken here. */
MYELIN_API myelin_status myelin_session_open(myelin_session **session, myelin_model *model,
                                             int32_t max_len, myelin_error *error);
MYELIN_API void myelin_session_close(myelin_session *session); /* accepts NULL */

/* Appends tokens; they are read by the next generate. */
MYELIN_API myelin_status myelin_session_append(myelin_session *session, const int32_t *ids,
                                               size_t count, myelin_error *error);
MYELIN_API myelin_status myelin_session_append_text(myelin_session *session, const char *text,
                                                    size_t length, bool parse_special,
                                                    myelin_error *error);
/*
 * Makes the session hold exactly these tokens, keeping the cache of the longest common prefix with
 * what it held.
 */
MYELIN_API myelin_status myelin_session_set(myelin_session *session, const int32_t *ids,
                                            size_t count, myelin_error *error);
/*
 * The same with the tokens of a conversation, prepared as in myelin_complete(). The next generate
 * gives its result as a turn. MYELIN_ERROR_CACHE_FULL when it is longer than the session.
 */
MYELIN_API myelin_status myelin_session_set_chat(myelin_session *session, const char *messages,
                                                 size_t length, const myelin_chat_options *chat,
                                                 myelin_error *error);
/* Forgets the tokens from `count` on. */
MYELIN_API void myelin_session_truncate(myelin_session *session, size_t count);
/* What it holds: prompts, what was generated, stop tokens. Valid until the next call on it. */
MYELIN_API const int32_t *myelin_session_tokens(const myelin_session *session, size_t *count);

/*
 * Generates after what the session holds, and appends what is generated to it. emit may be NULL.
 * options->max_len is not looked at: the session's own counts. After a stop string the session
 * keeps the tokens that spell it.
 */
MYELIN_API myelin_status myelin_session_generate(myelin_session *session, myelin_emit emit,
                                                 void *user,
                                                 const myelin_generation_options *options,
                                                 myelin_result *result, myelin_error *error);

/* ---- Many at once ------------------------------------------------------------------------------
 */

/* Fills *request (zeroed) and returns true, or returns false when there are no more. */
typedef bool (*myelin_next_request)(void *user, myelin_request *request);
/*
 * One request has ended, in any order: result is NULL when it failed and error NULL when not. Both
 * are valid during the call; a copy of *result whose original is zeroed takes its memory over.
 * Returns false to stop: nothing new is begun, and what is running ends as cancelled.
 */
typedef bool (*myelin_request_done)(void *user, void *tag, myelin_result *result,
                                    const myelin_error *error);

typedef struct myelin_batch_options {
    size_t size;           /* set by _init */
    int32_t max_sequences; /* 8: how many are generated at once */
} myelin_batch_options;

MYELIN_API void myelin_batch_options_init(myelin_batch_options *options);

/*
 * Generates for all requests, max_sequences at once; a new one joins when one ends. Each result
 * equals the one myelin_run() gives. Both callbacks run on the calling thread.
 */
MYELIN_API myelin_status myelin_batch_run(myelin_model *model, const myelin_batch_options *options,
                                          myelin_next_request next, myelin_request_done done,
                                          void *user, myelin_error *error);

/* ---- Serving -----------------------------------------------------------------------------------
 */

/*
 * A queue, a worker thread and a scheduler over one model. Requests join and leave between steps;
 * prompts are read in pieces that share steps with decoding; keys and values lie in pages of a
 * memory budget that is fixed at the start, and requests that begin alike share them. Each result
 * equals the one myelin_complete() gives. Any thread may call any of these at any time, callbacks
 * included, free() apart.
 */
typedef struct myelin_serving myelin_serving;

typedef struct myelin_serving_options {
    size_t size;             /* set by _init */
    int32_t max_sequences;   /* 16: generated at once */
    int32_t max_queue;       /* 1024: so many more may be there, waiting; then submit() is
                                MYELIN_ERROR_BUSY */
    int32_t step_tokens;     /* 0: as the plug-in asks, or max_sequences; prompts count too */
    uint64_t kv_bytes;       /* 0: room for max_sequences of 2048 tokens; of keys and values */
    bool prefix_cache;       /* true: pages of ended requests are kept until room is needed */
    double batch_timeout_ms; /* 0; an idle worker waits so long for company of a first request */
} myelin_serving_options;

MYELIN_API void myelin_serving_options_init(myelin_serving_options *options);

MYELIN_API myelin_status myelin_serving_start(myelin_serving **serving, myelin_model *model,
                                              const myelin_serving_options *options,
                                              myelin_error *error);
/* Cancels what runs and waits, waits for the worker to end, releases all. Accepts NULL. */
MYELIN_API void myelin_serving_free(myelin_serving *serving);

/* What a request is submitted with. */
typedef struct myelin_submission {
    size_t size;                   /* set by _init */
    const myelin_request *request; /* all it points to is copied, constraints and tags apart */
    int32_t priority;              /* 0; -100 to 100, higher ones begin first; equals in turn */
    bool prefix_cache;             /* true: may begin with pages of others, and leave its own */
    myelin_emit emit;              /* pieces, from the worker's thread; NULL: none. It must not
                                      block: nobody's tokens are computed meanwhile */
    myelin_request_done done;      /* once for each request submitted, from the worker's thread;
                                      NULL: not. What it returns does not matter */
    void *user;                    /* of both */
} myelin_submission;

MYELIN_API void myelin_submission_init(myelin_submission *submission);

/*
 * Queues a request; *id (may be NULL) names it until done() was called, which may be before this
 * returns. Tokenizing and checking happen here, on the caller's thread: what is wrong with a
 * request is this call's failure, and done() is not called. MYELIN_ERROR_BUSY when the queue is
 * full or the serving drains; MYELIN_ERROR_CACHE_FULL when the request alone would not fit.
 */
MYELIN_API myelin_status myelin_serving_submit(myelin_serving *serving,
                                               const myelin_submission *submission, uint64_t *id,
                                               myelin_error *error);
/* Ends a request as cancelled within one step, waiting ones too; one that has ended is ignored. */
MYELIN_API void myelin_serving_cancel(myelin_serving *serving, uint64_t id);

/*
 * Takes nothing new from now on and waits until all has ended, timeout_ms at most (negative: as
 * long as it takes): false when something was still running then. Within a callback it does not
 * wait.
 */
MYELIN_API bool myelin_serving_drain(myelin_serving *serving, double timeout_ms);

typedef struct myelin_serving_stats {
    size_t size; /* set by the caller to sizeof(myelin_serving_stats) */
    int32_t running, waiting;
    int32_t pages_total, pages_used, pages_cached; /* used by running requests; cached: others
                                                      that may be found again */
    uint64_t kv_bytes;                             /* of all pages */
    uint64_t requests_done, requests_failed, requests_cancelled;
    uint64_t prompt_tokens; /* of requests begun */
    uint64_t cached_tokens; /* so many of them taken from pages of others */
    uint64_t generated_tokens;
    uint64_t steps;
    double last_step_ms_ago; /* since a step ended; grows while idle */
    bool draining;
    int32_t max_len;    /* tokens of the longest request there is room for */
    bool device_failed; /* what runs the model ended in MYELIN_ERROR_DEVICE when it was last used:
                           requests fail, at once, until a step ends well again */
} myelin_serving_stats;

MYELIN_API void myelin_serving_get_stats(const myelin_serving *serving,
                                         myelin_serving_stats *stats);

/* ---- Embeddings --------------------------------------------------------------------------------
 */

/*
 * The embedding of a text, as Qwen3-Embedding defines it: the final norm's output at the last
 * token, divided by its length. The caller appends the end token the checkpoint was trained with.
 * embedding has hidden_size floats. MYELIN_ERROR_UNSUPPORTED when the plug-in cannot.
 */
MYELIN_API myelin_status myelin_embed(myelin_model *model, const int32_t *ids, size_t count,
                                      float *embedding, myelin_error *error);

/* ---- Scoring -----------------------------------------------------------------------------------
 */

/*
 * Log-probabilities (natural) of given tokens: logprobs[i] is that of ids[i + 1] after ids[0 .. i],
 * count - 1 in all. When num_top > 0, top_ids and top_logprobs [num_top] receive the most likely
 * tokens after the last one, best first (the lowest id among equals). count is at least 1.
 */
MYELIN_API myelin_status myelin_score(myelin_model *model, const int32_t *ids, size_t count,
                                      float *logprobs, int32_t num_top, int32_t *top_ids,
                                      float *top_logprobs, myelin_error *error);

#ifdef __cplusplus
}
#endif
#endif
