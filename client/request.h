/* What libupager asks the daemon for: a connection for each request (proto/session.h). */
#pragma once

#include <stddef.h>
#include <sys/un.h>

#include "proto/session.h"

#define PAGE 4096ul

/* The handle that programs have. */
struct upager {
	struct sockaddr_un address; /* constant */
};

static inline size_t page_up(size_t length)
{
	return (length + PAGE - 1) & ~(PAGE - 1);
}

/* What an error of a connection means: its timeout, or a daemon that is going. */
int request_explain(int r);

/* Hears the reply, and *memory with it, unless that is NULL. */
int request_reply(int socket, struct session_reply *ret, int *memory);

/* Sends a range, and `file` unless that is -1; hears the reply, however long it takes. */
int request_range(int socket, enum session_type type, const void *address, size_t length,
		  enum session_advice advice, int file);
