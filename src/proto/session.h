/*
 * The session: a SOCK_SEQPACKET socket between one client and the daemon.
 *
 *   daemon → client  offer    + /dev/userfaultfd (or none)
 *   client → daemon  hello    + descriptors of enum session_fd
 *   daemon → client  welcome  + exchange memfd, doorbell eventfd (and a forked child's uffd)
 *   agent  → daemon  ready    (one from each twin, with SCM_CREDENTIALS: its pid)
 *
 * After that the socket carries nothing: its end tells either side that the other is gone.
 *
 * A client that is attached asks for more on connections of their own, one request each, after the
 * offer; its pid (SO_PEERCRED) says who it is:
 *
 *   client → daemon  map + file              daemon → client  reply + memfd
 *   client → daemon  mapped (a range)        daemon → client  reply
 *
 *   client → daemon  sync (a range)          daemon → client  reply, when it is done
 *   client → daemon  advise (a range)        daemon → client  reply
 *   client → daemon  stat                    daemon → client  figures
 *
 *   client → daemon  snapshot (a range) + file   daemon → client  reply, when its moment has been
 *   client → daemon  cancel, or nothing          daemon → client  ended
 *
 * One that is not yet attached gets itself a group, which lives while the connection does, and has
 * to say hello meanwhile:
 *
 *   client → daemon  join (name, limit)      daemon → client  joined (group key)
 *
 * All integers are native (one machine); every message begins with a header that is checked.
 * Peers are not trusted: sizes, addresses and descriptors are checked by the receiver.
 */
#pragma once

#include <stdint.h>

#define SESSION_MAGIC   0x72676175u /* "uagr" */
#define SESSION_VERSION 1u
#define SESSION_SUFFIX  ".session" /* the session socket stands beside the control socket */

/* Environment of a client. */
#define SESSION_ENV_SOCKET "UPAGER_SOCKET" /* path of the control socket */
#define SESSION_ENV_GROUP  "UPAGER_GROUP"  /* the group's key, hexadecimal */

enum session_type {
	SESSION_OFFER = 1,
	SESSION_HELLO,
	SESSION_WELCOME,
	SESSION_READY,
	SESSION_JOIN,
	SESSION_JOINED,
	SESSION_MAP,
	SESSION_MAPPED,
	SESSION_SYNC,
	SESSION_ADVISE,
	SESSION_REPLY,
	SESSION_STAT,
	SESSION_FIGURES,
	SESSION_SNAPSHOT,
	SESSION_CANCEL,
	SESSION_ENDED,
};

struct session_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
};

struct session_offer {
	struct session_header header;
	uint32_t give_up_s;
	uint32_t reserved;
};

/* Descriptors of a hello, in this order; the mask says which are present. */
enum session_fd {
	SESSION_FD_MAPS,
	SESSION_FD_PAGEMAP,
	SESSION_FD_STATM,
	SESSION_FD_SMAPS_ROLLUP,
	SESSION_FD_MEM,
	SESSION_FD_LIFELINE, /* read end of a pipe whose write end is CLOEXEC in the client */
	SESSION_FD_UFFD,     /* absent from a forked child's hello: the daemon has it */
	SESSION_FDS,
};

struct session_hello {
	struct session_header header;
	uint32_t fd_mask;
	uint32_t reserved;
	uint64_t group_key; /* SESSION_ENV_GROUP */
	uint64_t token;     /* what a forked child read from its sentinel page; else 0 */
	uint64_t sentinel;  /* address */
};

struct session_welcome {
	struct session_header header;
	int32_t status; /* 0 or -errno: the client runs unpaged */
	uint32_t twins; /* how many agents to start: 2, one of them the spare */
	uint64_t exchange_size;
};

struct session_ready {
	struct session_header header;
	uint32_t index;  /* 0 active, 1 spare */
	int32_t ns_pid;  /* the agent's pid in the client's namespace */
	uint64_t staging, staging_rwx;
	uint64_t exclude[4][2];
};

struct session_join {
	struct session_header header;
	uint32_t reserved;
	uint64_t limit; /* bytes; 0: the group must be there already */
	char name[72];  /* ended by NUL; empty: one is made up */
};

struct session_joined {
	struct session_header header;
	int32_t status;     /* 0 or -errno; -EALREADY: the client is attached */
	uint64_t group_key; /* for the hello */
};

struct session_map {
	struct session_header header;
	uint32_t shared; /* 0 or 1 */
	uint64_t unit;   /* bytes best read together; 0 = no matter */
};

/* Of mapped, sync, advise and snapshot; length 0, of the last alone: all memory. */
struct session_range {
	struct session_header header;
	uint32_t advice; /* enum session_advice */
	uint64_t address, length;
};

enum session_advice {
	SESSION_ADVICE_NORMAL,
	SESSION_ADVICE_SEQUENTIAL,
	SESSION_ADVICE_RANDOM,
	SESSION_ADVICE_COLD,
	SESSION_ADVICES,
};

struct session_reply {
	struct session_header header;
	int32_t status; /* 0 or -errno */
	uint32_t writable; /* of map: the memfd can be written to */
	uint32_t reserved;
};

struct session_stat {
	struct session_header header;
};

struct session_figures {
	struct session_header header;
	int32_t status;
	uint64_t limit, resident, peak, evicted; /* bytes, of the group */
	uint64_t minor, major;                   /* faults */
	uint64_t image_limit, image_resident, image_dirty; /* bytes, of all programs */
	uint64_t snapshot, snapshot_copied; /* bytes, of the one that the client takes now */
};

struct session_cancel {
	struct session_header header;
};

/* Of a snapshot: if it failed before its moment, the reply says so, and nothing follows. */
struct session_ended {
	struct session_header header;
	int32_t status; /* 0 or -errno */
	uint32_t reserved;
	uint64_t size, lost; /* bytes */
	uint64_t stall_ns;
};

/* What the daemon puts on a forked child's sentinel page. */
struct session_sentinel {
	uint64_t magic;  /* SESSION_SENTINEL_MAGIC */
	uint64_t token;
	uint32_t silent; /* nonzero: make no system calls (the program filters them), say no hello */
	uint32_t reserved;
};
#define SESSION_SENTINEL_MAGIC 0x6c656e69746e6573ull /* "sentinel" */

/* Sends a message with descriptors (n_fds ≤ SESSION_FDS). 0 or -errno. Async-signal-safe. */
int session_send(int socket, const void *message, unsigned size, const int *fds, unsigned n_fds);

/* Receives one message of exactly `size` bytes and type `type`. Descriptors come CLOEXEC;
 * *ret_n_fds how many; *ret_pid the sender's pid if the socket passes credentials (may be NULL).
 * -ECONNRESET at the end of the stream, -EPROTO for a message of another kind (its descriptors are
 * closed), -EAGAIN. Async-signal-safe. */
int session_receive(int socket, unsigned type, void *message, unsigned size, int *fds,
		    unsigned max_fds, unsigned *ret_n_fds, int *ret_pid);

/* The type of the message that waits to be received: -EAGAIN, -ECONNRESET, -EPROTO. */
int session_peek(int socket);

void session_header_init(struct session_header *header, unsigned type);
