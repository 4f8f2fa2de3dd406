/* What the pager tells: into the registry, the log and the monitors. */
#pragma once

struct monitors;
struct pager;
struct registry;
struct snapshots;
struct traces;

struct notices {
	struct pager *pager;
	struct registry *registry;
	struct monitors *monitors;
	struct snapshots *snapshots;
	struct traces *traces;
};

/* Takes everything that waits. May end groups. */
void notices_drain(struct notices *notices);
