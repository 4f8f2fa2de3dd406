/*
 * The state file of a task: what must outlive the daemon. A sparse file on tmpfs, mapped whole.
 *
 *   header | journal | frame records | leaf bases | leaves
 *
 * Only used parts cost memory. Leaf i of the file describes the 2 MiB at leaf_base[i] - 1 (0 =
 * unused), so the tree above it can be built again from the file.
 */
#pragma once

#include <linux/userfaultfd.h>
#include <stdint.h>

#include "mm/word.h"
#include "proto/exchange.h"

#define STATE_MAGIC    0x6574617473677075ull
#define STATE_VERSION  1u
#define STATE_LEAVES   (1u << 20) /* 2 TiB of touched address space */
#define STATE_MESSAGES 1024u
#define LEAF_WORDS     512u

/* Messages as they were read; done follows n when they have been applied (applying is idempotent). */
struct state_journal {
	uint32_t n, done;
	struct uffd_msg messages[STATE_MESSAGES];
};

enum frame_state {
	FRAME_FREE,
	FRAME_OUT,     /* a command under way may move a page here */
	FRAME_WRITING, /* on its way to its slot */
	FRAME_STANDBY, /* its bytes are in its slot too */
};

struct frame {
	uint64_t address;  /* whose page; 0: nobody's any more (its word went another way) */
	struct slot slot;  /* where it goes; reserved when the command is posted */
	struct slot old;   /* the slot whose bytes the page came from, if has_old */
	uint8_t state;     /* enum frame_state */
	uint8_t has_old, moved, wanted;
	uint8_t by_hand;   /* the hand has taken it, not the queue */
};

struct state_header {
	uint64_t magic;
	uint32_t version;
	int32_t pid;
	uint64_t id, parent, sentinel;
};

struct state {
	union {
		struct state_header header;
		char header_page[4096];
	};
	struct state_journal journal __attribute__((aligned(4096)));
	struct frame frames[EXCHANGE_FRAMES_MAX] __attribute__((aligned(4096)));
	uint64_t leaf_base[STATE_LEAVES] __attribute__((aligned(4096)));
	word_t leaves[STATE_LEAVES][LEAF_WORDS] __attribute__((aligned(4096)));
};

/* Makes and maps a new state file `name` in directory `dir_fd`. 0 or -errno. */
int state_new(int dir_fd, const char *name, struct state **ret);
/* Unmaps the file and removes it. */
void state_free(int dir_fd, const char *name, struct state *state);
