/* varve device: making, listing, resizing and removing block devices of a running server. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "cmd/cmd.h"

/* The words: ACTION is where the other commands have their URL. */
struct words {
    const char *action, *url, *name, *size;
};

static const struct {
    const char *name;
    unsigned word_count; /* behind the action */
} actions[] = {{"create", 3}, {"list", 1}, {"resize", 3}, {"remove", 2}};

static int parse_words(const struct vv_options *options, struct words *out)
{
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        if (strcmp(options->url, actions[i].name) != 0)
            continue;
        if (options->word_count != actions[i].word_count)
            break;
        *out = (struct words){options->url, options->words[0], options->words[1],
                              options->words[2]};
        return 0;
    }
    fprintf(stderr, "varve: device: say create URL NAME SIZE, list URL, resize URL NAME SIZE or "
                    "remove URL NAME\n");
    return -EINVAL;
}

static int check_name(const char *name)
{
    if (*name != 0 && strlen(name) <= 255 && strpbrk(name, "/\n") == NULL &&
        strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
        return 0;
    fprintf(stderr, "varve: device %s: a name has 1 to 255 bytes, no slash and no newline\n", name);
    return -EINVAL;
}

static int make_request(const struct words *words, char *out, size_t size)
{
    uint64_t bytes;
    if (words->name == NULL) {
        vv_format(out, size, "device %s\n", words->action);
        return 0;
    }
    TRY(check_name(words->name));
    if (words->size == NULL) {
        vv_format(out, size, "device %s %s\n", words->action, words->name);
        return 0;
    }
    if (vv_parse_size(words->size, &bytes) < 0) {
        fprintf(stderr, "varve: device %s: %s is not a size\n", words->name, words->size);
        return -EINVAL;
    }
    vv_format(out, size, "device %s %" PRIu64 " %s\n", words->action, bytes, words->name);
    return 0;
}

static uint64_t number(const json_t *device, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(device, name));
}

static void print_devices(const json_t *answer)
{
    size_t i;
    json_t *device;
    json_array_foreach (json_object_get(answer, "devices"), i, device) {
        char size[32], used[32];
        const char *name = json_string_value(json_object_get(device, "name"));
        printf("%-24s %10s, %s used, %" PRIu64 " connections%s\n",
               name != NULL ? name : "(not UTF-8)",
               vv_size_to_text(number(device, "size"), size, sizeof size),
               vv_size_to_text(number(device, "used_bytes"), used, sizeof used),
               number(device, "connections"),
               json_is_true(json_object_get(device, "is_read_only")) ? ", read-only" : "");
    }
    if (json_is_true(json_object_get(answer, "is_cut")))
        printf("and more\n");
}

static int print_answer(const struct vv_options *options, const struct words *words,
                        const char *text)
{
    json_t *answer = json_loads(text, 0, NULL);
    if (answer == NULL) {
        fprintf(stderr, "varve: the server's answer makes no sense\n");
        return VV_EXIT_FAILED;
    }
    const char *error = json_string_value(json_object_get(answer, "error"));
    if (options->is_json)
        printf("%s", text);
    else if (error == NULL)
        print_devices(answer);
    if (error != NULL)
        fprintf(stderr, "varve: device %s%s%s: %s\n", words->action, words->name ? " " : "",
                words->name ? words->name : "", error);
    json_decref(answer);
    return error == NULL ? VV_EXIT_OK : VV_EXIT_FAILED;
}

int vv_cmd_device(const struct vv_options *options)
{
    struct words words;
    struct vv_place place;
    char request[512];
    char *answer;
    if (parse_words(options, &words) < 0 || make_request(&words, request, sizeof request) < 0 ||
        vv_place_parse(words.url, options, &place) < 0)
        return VV_EXIT_USAGE;
    int err = vv_admin_ask(&place, request, &answer);
    if (err < 0) {
        fprintf(stderr, "varve: no server answers for %s: start varve serve first\n", words.url);
        return VV_EXIT_FAILED;
    }
    int code = print_answer(options, &words, answer);
    vv_free(answer);
    return code;
}
