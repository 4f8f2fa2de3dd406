/*
 * A blocking varlink client: one connection, one call at a time.
 *
 * Not thread-safe. Descriptors are CLOEXEC.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define VL_INTERFACE "io.upager.Pager"
#define VL_REFUSED   1 /* the daemon answered with an error: see vl_client.error */

struct vl_client {
	int fd; /* -1 = closed */
	char *path;
	char *buffer; /* bytes received and not yet consumed */
	size_t length, capacity;
	unsigned patience_s; /* for an answer; 0: 15 */
	void (*waiting)(void *context); /* called now and then meanwhile; may be NULL */
	void *context;
	char *error;            /* name of the last error reply, or NULL */
	json_t *error_parameters;
};

/* => *ret is to be closed with vl_close. -ENOENT, -ECONNREFUSED: nobody listens; -EACCES;
 * -ENAMETOOLONG: the path does not fit a socket address. */
int vl_open(struct vl_client *ret, const char *path);
void vl_close(struct vl_client *client);

/* Calls io.upager.Pager.<method>; takes over `parameters` (may be NULL). 0 and the reply's
 * parameters (the caller's), VL_REFUSED, -ECONNRESET: the daemon went away, -ETIMEDOUT: it did not
 * answer in time, -EPROTO: it sent what is not varlink. */
int vl_call(struct vl_client *client, const char *method, json_t *parameters, json_t **ret);

/* The same in two steps, for calls that are answered later, or more than once. */
int vl_send(struct vl_client *client, const char *method, json_t *parameters, bool more);
/* *ret_more: others follow; NULL: none may. */
int vl_next(struct vl_client *client, json_t **ret, bool *ret_more);

bool vl_error_is(const struct vl_client *client, const char *name);

/* A sentence for a person about what vl_open or vl_call returned. => free() it. */
char *vl_explain(const struct vl_client *client, int result);
