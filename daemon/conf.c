#include "conf.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "failure.h"

#define FILE_MAX (1u << 20)

struct reader {
	struct conf *conf;
	struct failure *failure;
};

const char *conf_key_path(const struct conf_key *key, char *buffer, size_t size)
{
	static const char *const prefixes[] = {
	    [CONF_TOP] = "",
	    [CONF_SWAP] = "swap[].",
	    [CONF_COMPRESSED] = "compressed.",
	    [CONF_FEATURES] = "features.",
	};

	snprintf(buffer, size, "%s%s", prefixes[key->section], key->name);
	return buffer;
}

/* What was found instead: short, on one line. */
static void describe(json_t *value, char *buffer, size_t size)
{
	char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);

	if (!text)
		snprintf(buffer, size, "something unprintable");
	else if (strlen(text) < size)
		snprintf(buffer, size, "%s", text);
	else
		snprintf(buffer, size, "%.*s...", (int)size - 4, text);
	free(text);
}

static int refuse(struct reader *reader, const char *prefix, const char *name, json_t *value,
		  const char *expected)
{
	char got[48];

	describe(value, got, sizeof(got));
	return fail(reader->failure, -EINVAL, "%s%s: expected %s, got %s", prefix, name, expected,
		    got);
}

static int read_integer(struct reader *reader, const char *prefix, const struct conf_key *key,
			json_t *value, int64_t *ret)
{
	char expected[96];

	snprintf(expected, sizeof(expected), "a whole number from %" PRId64 " to %" PRId64,
		 key->min, key->max);
	if (!json_is_integer(value) || json_integer_value(value) < key->min ||
	    json_integer_value(value) > key->max)
		return refuse(reader, prefix, key->name, value, expected);
	*ret = json_integer_value(value);
	return 0;
}

static int read_size(struct reader *reader, const char *prefix, const struct conf_key *key,
		     json_t *value, uint64_t *ret)
{
	char expected[96], low[24], high[24];
	uint64_t size;

	if (json_is_integer(value) && json_integer_value(value) >= 0)
		size = (uint64_t)json_integer_value(value);
	else if (!json_is_string(value) || size_parse(json_string_value(value), &size) < 0)
		return refuse(reader, prefix, key->name, value, "a size such as \"8G\"");
	if (size % 4096)
		return refuse(reader, prefix, key->name, value, "a multiple of 4096 bytes");
	if (size > (uint64_t)key->max || (size && size < (uint64_t)key->min)) {
		snprintf(expected, sizeof(expected), "a size from %s to %s",
			 size_format((uint64_t)key->min, low), size_format((uint64_t)key->max, high));
		return refuse(reader, prefix, key->name, value, expected);
	}
	*ret = size;
	return 0;
}

static int read_choice(struct reader *reader, const char *prefix, const struct conf_key *key,
		       json_t *value, unsigned *ret)
{
	char expected[96] = "";

	for (unsigned i = 0; key->choices[i]; i++) {
		size_t used = strlen(expected);

		if (json_is_string(value) && !strcmp(json_string_value(value), key->choices[i])) {
			*ret = i;
			return 0;
		}
		snprintf(expected + used, sizeof(expected) - used, "%s\"%s\"", i ? " or " : "",
			 key->choices[i]);
	}
	return refuse(reader, prefix, key->name, value, expected);
}

static int read_section(struct reader *reader, enum conf_section section, const char *prefix,
			json_t *object, void *base);

static int read_swaps(struct reader *reader, json_t *list)
{
	json_t *item;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) > CONF_SWAPS)
		return refuse(reader, "", "swap", list, "a list of at most 32 objects");
	json_array_foreach(list, i, item)
	{
		char prefix[32];
		int r;

		snprintf(prefix, sizeof(prefix), "swap[%zu]", i);
		r = read_section(reader, CONF_SWAP, prefix, item, &reader->conf->swap[i]);
		if (r < 0)
			return r;
	}
	reader->conf->pager.swaps = reader->conf->swap;
	reader->conf->pager.n_swaps = json_array_size(list);
	return 0;
}

static int read_path(struct reader *reader, const char *prefix, const struct conf_key *key,
		     json_t *value, const char **ret)
{
	if (!json_is_string(value) || *json_string_value(value) != '/')
		return refuse(reader, prefix, key->name, value, "an absolute path");
	*ret = json_string_value(value);
	return 0;
}

static int read_value(struct reader *reader, const char *prefix, const struct conf_key *key,
		      json_t *value, void *base)
{
	void *field = (char *)base + key->offset;
	int64_t number = 0;
	int r;

	switch (key->type) {
	case CONF_PATH:
		return read_path(reader, prefix, key, value, field);
	case CONF_SIZE:
		return read_size(reader, prefix, key, value, field);
	case CONF_CHOICE:
		return read_choice(reader, prefix, key, value, field);
	case CONF_LIST:
		return read_swaps(reader, value);
	case CONF_OBJECT:
		return read_section(reader, (enum conf_section)key->max, key->name, value,
				    reader->conf);
	case CONF_UINT:
		r = read_integer(reader, prefix, key, value, &number);
		if (r >= 0)
			*(unsigned *)field = (unsigned)number;
		return r;
	case CONF_INT:
		r = read_integer(reader, prefix, key, value, &number);
		if (r >= 0)
			*(int *)field = (int)number;
		return r;
	case CONF_BOOL:
	case CONF_FEATURE:
		if (!json_is_boolean(value))
			return refuse(reader, prefix, key->name, value, "true or false");
		if (key->type == CONF_BOOL)
			*(bool *)field = json_is_true(value);
		else if (json_is_true(value))
			*(unsigned *)field |= (unsigned)key->max;
		return 0;
	}
	return -EINVAL;
}

static const struct conf_key *find_key(enum conf_section section, const char *name)
{
	for (size_t i = 0; i < conf_n_keys; i++)
		if (conf_keys[i].section == section && !strcmp(conf_keys[i].name, name))
			return &conf_keys[i];
	return NULL;
}

/* The value, or the default, which then becomes part of the file so that it lives as long. */
static json_t *value_of(json_t *object, const struct conf_key *key)
{
	json_t *value = json_object_get(object, key->name);

	if (value || !key->fallback)
		return value;
	value = json_loads(key->fallback, JSON_DECODE_ANY, NULL);
	return json_object_set_new(object, key->name, value) < 0 ? NULL : value;
}

static int read_section(struct reader *reader, enum conf_section section, const char *name,
			json_t *object, void *base)
{
	char prefix[32] = "";
	const char *given;
	json_t *value;

	if (!json_is_object(object))
		return refuse(reader, "", *name ? name : "the file", object, "an object");
	if (*name)
		snprintf(prefix, sizeof(prefix), "%s.", name);
	json_object_foreach(object, given, value)
	{
		if (!find_key(section, given))
			return fail(reader->failure, -EINVAL,
				    "%s%.64s: unknown key (upagerd --help-config lists them)",
				    prefix, given);
	}
	for (size_t i = 0; i < conf_n_keys; i++) {
		int r;

		if (conf_keys[i].section != section)
			continue;
		value = value_of(object, &conf_keys[i]);
		if (!value)
			return fail(reader->failure, -EINVAL, "%s%s: missing; it has no default",
				    prefix, conf_keys[i].name);
		r = read_value(reader, prefix, &conf_keys[i], value, base);
		if (r < 0)
			return r;
	}
	return 0;
}

int conf_parse(const char *text, size_t size, struct conf *ret, struct failure *failure)
{
	struct reader reader = {.conf = ret, .failure = failure};
	json_error_t error;
	json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
	int r;

	if (!root)
		return fail(failure, -EINVAL, "%d:%d: %s", error.line, error.column, error.text);
	*ret = (struct conf){
	    .root = root,
	    .socket_given = json_object_get(root, "socket") != NULL,
	    .runtime_dir_given = json_object_get(root, "runtime_dir") != NULL,
	    .swap_given = json_object_get(root, "swap") != NULL,
	};
	r = read_section(&reader, CONF_TOP, "", root, ret);
	if (r == 0 && ret->pager.compressed.algorithm == PAGER_LZ4 && ret->pager.compressed.level > 0)
		r = fail(failure, -EINVAL, "compressed.level: lz4 has none above 0, got %d",
			 ret->pager.compressed.level);
	if (r < 0)
		conf_done(ret);
	return r;
}

static int read_file(const char *path, char *buffer, size_t *ret_size)
{
	FILE *file = strcmp(path, "-") ? fopen(path, "re") : stdin;
	int r = 0;

	if (!file)
		return -errno;
	*ret_size = fread(buffer, 1, FILE_MAX, file);
	if (ferror(file))
		r = errno ? -errno : -EIO;
	else if (*ret_size == FILE_MAX)
		r = -EFBIG;
	if (file != stdin)
		fclose(file);
	return r;
}

int conf_load(const char *path, struct conf *ret, struct failure *failure)
{
	struct failure inner;
	size_t size = 0;
	char *buffer;
	int r;

	if (!path)
		return conf_parse("{}", 2, ret, failure);
	buffer = malloc(FILE_MAX);
	if (!buffer)
		return fail(failure, -ENOMEM, "out of memory");
	r = read_file(path, buffer, &size);
	if (!strcmp(path, "-"))
		path = "configuration";
	if (r < 0) {
		fail(failure, r, "%s: %s", path, strerror(-r));
	} else {
		r = conf_parse(buffer, size, ret, &inner);
		/* A syntax error begins with its line: file:line:column, as compilers do. */
		if (r < 0)
			fail(failure, r, "%s:%s%s", path,
			     inner.text[0] >= '0' && inner.text[0] <= '9' ? "" : " ", inner.text);
	}
	free(buffer);
	return r;
}

void conf_done(struct conf *conf)
{
	json_decref(conf->root);
	conf->root = NULL;
}

static void document_values(FILE *out, const struct conf_key *key)
{
	static const char *const types[] = {
	    [CONF_PATH] = "path",    [CONF_UINT] = "number", [CONF_INT] = "number",
	    [CONF_BOOL] = "bool",    [CONF_SIZE] = "size",   [CONF_CHOICE] = "choice",
	    [CONF_FEATURE] = "bool", [CONF_LIST] = "list",   [CONF_OBJECT] = "object",
	};

	fprintf(out, "    %s", types[key->type]);
	if (key->type == CONF_UINT || key->type == CONF_INT)
		fprintf(out, ", %" PRId64 " to %" PRId64, key->min, key->max);
	for (unsigned i = 0; key->choices && key->choices[i]; i++)
		fprintf(out, "%s\"%s\"", i ? " or " : ": ", key->choices[i]);
	if (*key->unit)
		fprintf(out, ", in %s", key->unit);
	if (key->fallback)
		fprintf(out, "; default %s\n", key->fallback);
	else
		fprintf(out, "; must be given\n");
}

void conf_document(FILE *out)
{
	for (size_t i = 0; i < conf_n_keys; i++) {
		char path[64];

		fprintf(out, "%s\n", conf_key_path(&conf_keys[i], path, sizeof(path)));
		document_values(out, &conf_keys[i]);
		fprintf(out, "    %s\n", conf_keys[i].meaning);
	}
}
