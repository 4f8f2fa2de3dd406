/*
 * Varlink, the service's side: bytes in, calls out, replies back. Knows nothing of sockets, so that
 * it can be tested and fuzzed as it is.
 *
 * Calls on a connection are answered in order: while one waits for its (last) reply, what follows
 * stays in the buffer. A malformed message is answered with an error and the connection goes on,
 * since the NUL byte says where the next one begins; only what exceeds the limits ends it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define VARLINK_MESSAGE_MAX (1u << 20) /* bytes, without the NUL */

struct varlink;
struct varlink_call;

struct varlink_method {
	const char *name; /* without the interface; NULL ends the list */
	void (*run)(struct varlink_call *call);
};

struct varlink_interface {
	const char *name, *description;
	const struct varlink_method *methods;
};

/* org.varlink.service comes by itself. */
struct varlink_service {
	const char *vendor, *product, *version, *url;
	const struct varlink_interface *const *interfaces; /* ended by NULL */
};

struct varlink {
	const struct varlink_service *service;
	/* A whole message with its NUL; may set ->dead. */
	void (*send)(struct varlink *link, const char *message, size_t size);
	void *context; /* the caller's */
	bool dead;     /* nothing more is dispatched or sent */

	/* private */
	struct varlink_call *current;
	bool dispatching;
	char *buffer;
	size_t used, scanned, allocated;
};

/* A call that has not been answered for the last time. Methods may keep it: it lives until
 * varlink_reply (without `continues`) or varlink_error, or until varlink_done, which asks
 * `cancelled` to let go of it. */
struct varlink_call {
	struct varlink *link;
	json_t *message, *parameters; /* parameters is an object, or NULL */
	const char *method;	      /* the whole name */
	bool more, oneway;
	void (*cancelled)(struct varlink_call *call);
	void *state;
};

void varlink_init(struct varlink *link, const struct varlink_service *service,
		  void (*send)(struct varlink *, const char *, size_t), void *context);
void varlink_done(struct varlink *link);

/* 0; -EMSGSIZE: a message or the queue is too long (an error was sent): close; -ENOMEM. */
int varlink_feed(struct varlink *link, const char *data, size_t size);

/* Take parameters over; NULL = none. `continues` only if the call asked for more. */
void varlink_reply(struct varlink_call *call, json_t *parameters, bool continues);
void varlink_error(struct varlink_call *call, const char *error, json_t *parameters);
/* org.varlink.service.InvalidParameter */
void varlink_invalid(struct varlink_call *call, const char *parameter);

enum varlink_type { VARLINK_STRING /* const char * */, VARLINK_INT /* int64_t */ };
struct varlink_parameter {
	const char *name;
	enum varlink_type type;
	bool nullable; /* may be missing or null: *ret is then left as it is */
	void *ret;
};
/* False: the call was answered with an error. Strings live as long as the call. */
bool varlink_parameters(struct varlink_call *call, const struct varlink_parameter *expected,
			size_t n);

/* A JSON string; bytes that are not UTF-8 become "?". */
json_t *varlink_text(const char *text);
