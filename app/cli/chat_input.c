/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chat.h"
#include "lines.h"

enum { HISTORY_LINES = 1000 };

static const char fence[] = "\"\"\"";

struct chat_input {
    EditLine *editor; /* NULL: plain reading */
    History *history;
    HistEvent event;
    char *history_file; /* NULL: kept in memory alone */
    bool continued;     /* the line is not the first of its turn */
    bool cancelled;     /* Ctrl-C ended the line */
    char *line;         /* of getline() */
    size_t capacity;
};

static char *prompt(EditLine *editor) {
    static char first[] = "> ", further[] = ". ";
    chat_input *input = NULL;
    el_get(editor, EL_CLIENTDATA, &input);
    return input->continued ? further : first;
}

/* Ctrl-C is a key while a line is edited: it throws the line away. */
static unsigned char cancel_line(EditLine *editor, wint_t key) {
    chat_input *input = NULL;
    (void)key;
    el_get(editor, EL_CLIENTDATA, &input);
    input->cancelled = true;
    return CC_NEWLINE;
}

/* The terminal sends no signals while a line is edited, so this key does what its signal would. */
static unsigned char suspend(EditLine *editor, wint_t key) {
    (void)editor;
    (void)key;
    raise(SIGTSTP);
    return CC_REFRESH;
}

/* Makes a directory and those it is in; what is there already is fine. */
static void make_directories(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, S_IRWXU);
        *slash = '/';
    }
}

/* Where lines are kept for the next time, readable by their owner alone; NULL when nowhere. */
static char *find_history_file(void) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path;
    if (state != NULL && *state == '/')
        path = cli_format("%s/myelin/history", state);
    else if (home != NULL && *home == '/')
        path = cli_format("%s/.local/state/myelin/history", home);
    else
        return NULL;
    make_directories(path);
    int file =
        open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, S_IRUSR | S_IWUSR);
    if (file < 0) {
        free(path);
        return NULL;
    }
    close(file);
    return path;
}

static void open_history(chat_input *input) {
    input->history = history_init();
    if (input->history == NULL)
        return;
    history(input->history, &input->event, H_SETSIZE, HISTORY_LINES);
    history(input->history, &input->event, H_SETUNIQUE, 1);
    input->history_file = find_history_file();
    if (input->history_file != NULL)
        history(input->history, &input->event, H_LOAD, input->history_file);
    el_set(input->editor, EL_HIST, history, input->history);
}

static void open_editor(chat_input *input) {
    if (setlocale(LC_CTYPE, "") == NULL || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
    input->editor = el_init("myelin", stdin, stdout, stderr);
    if (input->editor == NULL)
        return;
    el_set(input->editor, EL_CLIENTDATA, input);
    el_set(input->editor, EL_PROMPT, prompt);
    el_set(input->editor, EL_EDITOR, "emacs");
    el_set(input->editor, EL_SIGNAL, 1);
    el_set(input->editor, EL_SETTY, "-d", "-isig", NULL);
    /* The narrow form would copy the names and never free the copies. */
    el_wset(input->editor, EL_ADDFN, L"cancel-line", L"Throws the line away", cancel_line);
    el_set(input->editor, EL_BIND, "^C", "cancel-line", NULL);
    el_wset(input->editor, EL_ADDFN, L"suspend", L"Stops the program", suspend);
    el_set(input->editor, EL_BIND, "^Z", "suspend", NULL);
    el_set(input->editor, EL_BIND, "^R", "em-inc-search-prev", NULL);
    open_history(input);
}

chat_input *chat_input_open(void) {
    chat_input *input = cli_allocate(sizeof *input);
    memset(input, 0, sizeof *input);
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
        open_editor(input);
    return input;
}

void chat_input_close(chat_input *input) {
    if (input->history != NULL)
        history_end(input->history);
    if (input->editor != NULL)
        el_end(input->editor);
    free(input->history_file);
    free(input->line);
    free(input);
}

bool chat_input_is_terminal(const chat_input *input) {
    return input->editor != NULL;
}

/* The history is written at once, so that it outlives a kill. */
static void remember(chat_input *input, const char *line) {
    if (input->history == NULL || line[strspn(line, " \t\n")] == '\0')
        return;
    history(input->history, &input->event, H_ENTER, line);
    if (input->history_file != NULL)
        history(input->history, &input->event, H_SAVE, input->history_file);
}

/* One line with its newline, valid until the next; NULL at the end. */
static const char *read_line(chat_input *input, size_t *length) {
    if (input->editor != NULL) {
        int count = 0;
        const char *line = el_gets(input->editor, &count);
        if (line == NULL || count <= 0)
            return NULL;
        if (input->cancelled)
            return line;
        remember(input, line);
        *length = (size_t)count;
        return line;
    }
    ssize_t count = getline(&input->line, &input->capacity, stdin);
    if (count < 0 || count > CLI_MAX_LINE)
        return NULL;
    *length = (size_t)count;
    return input->line;
}

static size_t without_newline(const char *line, size_t length) {
    return length > 0 && line[length - 1] == '\n' ? length - 1 : length;
}

static void append(char **text, size_t *length, const char *more, size_t count) {
    *text = cli_reallocate(*text, *length + count + 1);
    memcpy(*text + *length, more, count);
    *length += count;
    (*text)[*length] = '\0';
}

/* Reads up to the closing fence; the text so far, without the opening one, is in *text. */
static bool read_fenced(chat_input *input, char **text, size_t *length) {
    const size_t size = sizeof fence - 1;
    for (;;) {
        if (*length >= size && strcmp(*text + *length - size, fence) == 0) {
            (*text)[*length - size] = '\0';
            return true;
        }
        size_t count = 0;
        input->continued = true;
        const char *line = read_line(input, &count);
        input->continued = false;
        if (line == NULL || input->cancelled)
            return line == NULL; /* the end of the input closes it as well */
        append(text, length, "\n", 1);
        append(text, length, line, without_newline(line, count));
    }
}

char *chat_input_next(chat_input *input) {
    for (;;) {
        size_t count = 0, length = 0;
        char *text = NULL;
        input->cancelled = false;
        const char *line = read_line(input, &count);
        if (line == NULL)
            return NULL;
        if (input->cancelled) {
            cli_output("\n", 1);
            continue;
        }
        append(&text, &length, line, without_newline(line, count));
        if (strncmp(text, fence, sizeof fence - 1) != 0)
            return text;
        length -= sizeof fence - 1;
        memmove(text, text + sizeof fence - 1, length + 1);
        if (read_fenced(input, &text, &length)) {
            const char *body = text + (*text == '\n');
            size_t size = without_newline(body, strlen(body));
            char *turn = cli_format("%.*s", (int)size, body);
            free(text);
            return turn;
        }
        free(text);
        cli_output("\n", 1);
    }
}
