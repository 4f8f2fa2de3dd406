/* What the pager tells: into the registry, the log and the monitors. */
#pragma once

struct monitors;
struct pager;
struct registry;

struct notices {
	struct pager *pager;
	struct registry *registry;
	struct monitors *monitors;
};

/* Takes everything that waits. May end groups. */
void notices_drain(struct notices *notices);
