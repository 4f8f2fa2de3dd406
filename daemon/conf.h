/*
 * The configuration file: JSON, every key optional unless it says so, nothing unknown accepted.
 *
 * One table (conf_keys) drives the parser, `upagerd --help-config`, and the tests that hold the
 * manual page and the example file to it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "pager/pager.h"

struct failure;
struct json_t;

#define CONF_SWAPS 32

struct conf {
	struct json_t *root; /* owns the strings below */
	const char *socket;
	const char *runtime_dir;
	bool socket_given, runtime_dir_given, swap_given; /* by the file, not by default */
	struct pager_config pager;			  /* .swaps points to swap; no state_dir */
	struct pager_swap swap[CONF_SWAPS];
};

enum conf_section { CONF_TOP, CONF_SWAP, CONF_COMPRESSED, CONF_FEATURES };
enum conf_type {
	CONF_PATH,    /* const char *, absolute */
	CONF_UINT,    /* unsigned */
	CONF_INT,     /* int */
	CONF_BOOL,    /* bool */
	CONF_SIZE,    /* uint64_t, bytes: an integer or a text such as "8G" */
	CONF_CHOICE,  /* unsigned: the index of one of `choices` */
	CONF_FEATURE, /* a bool that sets or clears the bit `max` of an unsigned */
	CONF_LIST,    /* of section CONF_SWAP */
	CONF_OBJECT,  /* of the section `max` */
};

struct conf_key {
	enum conf_section section;
	enum conf_type type;
	const char *name;
	size_t offset; /* in struct conf, or in struct pager_swap */
	int64_t min, max;
	const char *const *choices; /* ended by NULL */
	const char *unit;	    /* "" = none */
	const char *fallback;	    /* the default, as JSON; NULL = the key must be given */
	const char *meaning;
	bool testing; /* for tests: documented, but not in the example file */
};

extern const struct conf_key conf_keys[];
extern const size_t conf_n_keys;

/* "swap[].size", for documentation. Returns buffer. */
const char *conf_key_path(const struct conf_key *key, char *buffer, size_t size);

/*
 * Both fill *ret, which must not move afterwards. -EINVAL: refused; *failure says which key and
 * why, without naming the file, except that conf_load's begins with "path: " or "path:line:column:
 * ".
 */
int conf_parse(const char *text, size_t size, struct conf *ret, struct failure *failure);
/* path NULL = all defaults, "-" = standard input. Other errors are those of reading the file. */
int conf_load(const char *path, struct conf *ret, struct failure *failure);
void conf_done(struct conf *conf);

/* Every key with type, unit, default and meaning, as text for a terminal. */
void conf_document(FILE *out);
