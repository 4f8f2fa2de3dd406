/*
 * EVENT_FORK: the child is served from the words its parent had, by slot. Its own markers decide,
 * fault by fault, which of them it has: it may be the copy of an older or a newer address space
 * than the words of this moment.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/file.h"
#include "pager/trace.h"

word_t word_share(struct task *parent, word_t word)
{
	const struct frame *record;
	word_t content = WORD_NONE;

	switch (word_tag(word)) {
	case WORD_EVICTING:
	case WORD_STANDBY:
		record = &parent->frames.records[word_frame(word)];
		if (word_tag(word) == WORD_STANDBY || record->moved)
			content = word_of_slot(WORD_SWAP, word & WORD_UNMARKED, record->slot);
		break;
	case WORD_SWAP:
	case WORD_FILLING:
		content = (word & ~(word_t)0xf & ~WORD_GEN_MASK) | WORD_SWAP;
		break;
	case WORD_POISON:
		return word & ~WORD_GEN_MASK;
	default:
		return WORD_NONE;
	}
	if (content)
		pager_slot_get(parent->worker, content);
	return content;
}

static int clone_words(struct task *parent, struct task *child)
{
	for (struct leaf *leaf = table_next(&parent->table, 0, UINT64_MAX); leaf;
	     leaf = table_next(&parent->table, leaf->base + LEAF_SIZE, UINT64_MAX)) {
		for (unsigned i = 0; leaf->evicted && i < LEAF_WORDS; i++) {
			word_t content = word_share(parent, leaf->words[i]);

			if (content && table_set(&child->table,
						 leaf->base + i * (uint64_t)PAGE_SIZE, content) < 0)
				return -ENOMEM;
		}
	}
	for (size_t i = 0; i < parent->n_limbo; i++) {
		const struct limbo_entry *entry = &parent->limbo[i];

		if (word_is_evicted(table_get(&child->table, entry->address)))
			continue;
		if (table_set(&child->table, entry->address, word_share(parent, entry->word)) < 0)
			return -ENOMEM;
	}
	for (size_t i = 0; i < parent->regions.n; i++) {
		struct region region = parent->regions.list[i];

		region.looked = false;
		if (regions_add(&child->regions, &region) < 0)
			return -ENOMEM;
	}
	child->unmarked = parent->unmarked;
	return images_forked(parent, child);
}

/* A program that filters its system calls may be killed for ours. */
static bool filters_calls(pid_t pid)
{
	char path[32], text[4096];
	const char *line;
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	if (n <= 0)
		return false;
	text[n] = 0;
	line = strstr(text, "\nSeccomp:");
	return line && strtol(line + 9, NULL, 10) != 0;
}

void fork_task(struct task *parent, int uffd)
{
	struct task *child = task_create(parent->group);
	int r = -ENOMEM;

	if (child) {
		child->uffd = uffd;
		child->parent = parent->id;
		child->features = parent->features;
		child->sentinel = parent->sentinel;
		child->forked = parent->forked = true;
		child->snapped = parent->snapped;
		child->silent = parent->silent || filters_calls(parent->pid);
		child->state->header.parent = parent->id;
		child->state->header.sentinel = parent->sentinel;
		memcpy(child->exclude, parent->exclude, sizeof(child->exclude));
		r = clone_words(parent, child);
	}
	if (r < 0) {
		/* Its uffd stays open: better a child that hangs until somebody looks than one
		 * that reads zeros. */
		pager_notify(parent, PAGER_NOTICE_BROKEN, 0, (uint64_t)-r);
		return;
	}
	task_watch(child);
	trace_task(child);
	pager_notify(child, PAGER_NOTICE_TASK_FORKED, 0, parent->id);
}
