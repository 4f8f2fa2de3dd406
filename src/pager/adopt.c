/*
 * Which memory there is, and how much: the client's VMAs are found and registered from outside,
 * its size is sampled, and the limit follows from both.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "pager/trace.h"
#include "policy/pressure.h"
#include "sys/procmaps.h"

#define ACTIVE      (200 * MS) /* how long after a fault a group is looked at every millisecond */
#define SHARED_EVERY (100 * MS) /* smaps_rollup walks page tables: seldom */
#define SCAN_EVERY  (MS / 5)
#define SCAN_EACH   (5 * 1000ull) /* ns that a VMA adds to the time between scans */
#define GROWING     (50 * MS) /* how long after a change of size a group may be growing fast */
#define HOPELESS    (2 * MS)   /* nothing could leave: faults need not find that out one by one */
#define REFAULTS_HALVE (50 * MS)
#define PUBLISH_EVERY (20 * MS)

/* ---- VMAs ---- */

int adopt_sentinel(struct task *t)
{
	t->exclude[4][0] = t->sentinel;
	t->exclude[4][1] = t->sentinel + PAGE_SIZE;
	return uffd_register(t->uffd, t->sentinel, PAGE_SIZE);
}

static bool is_ours(const struct task *t, const struct procmaps_vma *vma)
{
	for (size_t i = 0; i < ARRAY_SIZE(t->exclude); i++)
		if (vma->start < t->exclude[i][1] && t->exclude[i][0] < vma->end)
			return true;
	return false;
}

/* Private anonymous memory; the main stack is left alone, and so is what is ours. */
static bool can_be_paged(const struct task *t, const struct procmaps_vma *vma)
{
	return vma->flags & PROCMAPS_ANONYMOUS && !(vma->flags & PROCMAPS_STACK) &&
	       !is_ours(t, vma);
}

/* Registers a whole VMA: half a VMA would split it, and the client's mremap across the seam would
 * fail. Between the look and the call the client may have mapped something else there: so look
 * again, and treat as a region only what is memory now. What was registered by mistake stays so:
 * UNREGISTER would erase the markers of whatever the client moves there at that moment. Only a
 * private memfd can be hit (REGISTER refuses other files): its holes read as zeros either way. */
static void register_region(struct task *t, struct region *region)
{
	bool query = pager_may(t->worker, PAGER_FEATURE_PROCMAP_QUERY);
	struct procmaps_vma vma;
	int r = uffd_register(t->uffd, region->start, region->end - region->start);

	if (r < 0) {
		region->refused = true;
		return;
	}
	region->registered = procmaps_find(t->maps, query, region->start, &vma) == 0 &&
			     can_be_paged(t, &vma);
	if (!region->registered || vma.end < region->end)
		t->adopt.wanted = true; /* it has changed meanwhile */
}

/* The client may have mapped anew between the look and the call, and only the upper part of that is
 * registered: an mremap across such a seam fails. So what lies right below is registered at once;
 * what lies above is next in the scan. */
static void close_seam(struct task *t, const struct procmaps_vma *vma)
{
	bool query = pager_may(t->worker, PAGER_FEATURE_PROCMAP_QUERY);
	struct procmaps_vma below;

	if (procmaps_find(t->maps, query, vma->start - PAGE_SIZE, &below) < 0 ||
	    below.end != vma->start || below.flags != vma->flags || !can_be_paged(t, &below))
		return;
	uffd_register(t->uffd, below.start, below.end - below.start);
	t->adopt.wanted = true; /* its region comes with the next scan */
}

/* What was known of the very same VMA. */
static void inherit(struct task *t, struct region *region)
{
	const struct region *old = regions_find(&t->regions, region->start);

	if (!old || old->start != region->start || old->end != region->end)
		return;
	region->registered = old->registered;
	region->refused = old->refused;
	region->looked = old->looked;
	region->denied_until = old->denied_until;
}

/* What the scan sees is of this size, or newer: any other size means another scan. */
static void note_size(struct task *t)
{
	struct procmaps_statm statm;

	if (t->statm >= 0 && procmaps_statm(t->statm, &statm) == 0) {
		t->adopt.size = statm.size;
		t->adopt.data = statm.data;
	}
}

/* One VMA of a scan: kept as a region, registered if it is new. */
static int adopt_vma(struct task *t, const struct procmaps_vma *vma, struct regions *found,
		     bool *registered)
{
	struct region region = {
		.start = vma->start,
		.end = vma->end,
		.writable = (vma->flags & (PROCMAPS_READ | PROCMAPS_WRITE)) ==
			    (PROCMAPS_READ | PROCMAPS_WRITE),
		.exec = vma->flags & PROCMAPS_EXEC,
	};

	if (vma->flags & PROCMAPS_HUGETLB) {
		*registered = hugetlb_adopt(t, &region) || *registered;
		return region.hugetlb ? regions_add(found, &region) : 0;
	}
	if (!can_be_paged(t, vma))
		return 0;
	inherit(t, &region);
	if (!region.registered && !region.refused) {
		register_region(t, &region);
		if (t->mappings.n && region.registered)
			mappings_remove(&t->mappings, region.start, region.end);
		if (!found->n || found->list[found->n - 1].end < region.start)
			close_seam(t, vma);
		*registered = *registered || region.registered;
	}
	if (region.registered)
		t->registered += region.end - region.start;
	return regions_add(found, &region);
}

/* Each VMA is registered as soon as it is seen: one that the client changes in between may be
 * registered in part only, which leaves a seam. */
void adopt_scan(struct task *t)
{
	bool query = pager_may(t->worker, PAGER_FEATURE_PROCMAP_QUERY);
	struct procmaps maps = {0};
	struct procmaps_vma vma;
	struct regions found = {0};
	bool registered = false;
	uint64_t at = 0, seen = 0;
	int r;

	if (t->maps < 0 || t->ended)
		return;
	t->adopt.wanted = true; /* until it has been done */
	if (t->worker->now < t->adopt.next_scan)
		return;
	if (!gate_take(t))
		return;
	t->adopt.wanted = false;
	note_size(t);
	count(&t->counters, scans);
	t->registered = 0;
	while ((r = procmaps_next(t->maps, query, &maps, at, &vma)) == 0) {
		seen++;
		r = adopt_vma(t, &vma, &found, &registered);
		if (r < 0)
			break;
		at = vma.end;
	}
	/* Commands that were posted against what was mapped here before are void. */
	gate_release(t, registered);
	procmaps_done(&maps);
	/* With thousands of VMAs a scan takes milliseconds: a twentieth of the time, about, no more. */
	t->adopt.next_scan = now_ns() + MAX(SCAN_EVERY, seen * SCAN_EACH);
	if (r == -ENOENT) {
		regions_done(&t->regions);
		t->regions = found;
		/* What is new may have come with more that is. */
		t->adopt.wanted = t->adopt.wanted || registered;
		return;
	}
	regions_done(&found);
	t->adopt.wanted = r == -ENOMEM;
}

static bool is_known(const struct task *t, const struct procmaps_vma *vma)
{
	for (uint64_t at = vma->start; at < vma->end;) {
		const struct region *r = regions_find(&t->regions, at);

		if (!r || r->start > at || !(r->registered || r->refused))
			return false;
		at = r->end;
	}
	return true;
}

bool adopt_complete(struct task *t, uint64_t start, uint64_t end)
{
	bool query = pager_may(t->worker, PAGER_FEATURE_PROCMAP_QUERY);
	struct procmaps maps = {0};
	struct procmaps_vma vma;
	int r;

	while ((r = procmaps_next(t->maps, query, &maps, start, &vma)) == 0 && vma.start < end) {
		if (can_be_paged(t, &vma) && !is_known(t, &vma))
			break;
		start = vma.end;
	}
	procmaps_done(&maps);
	return r == -ENOENT || (r == 0 && vma.start >= end);
}

/* ---- the limit ---- */

static struct pressure pressure_now(const struct group *g)
{
	return pressure_of(bytes_to_pages(atomic_load(&g->limit)), g->reserved);
}

uint64_t group_room(const struct group *g)
{
	struct pressure p = pressure_now(g);

	if (!g->armed)
		return p.high;
	return p.high > g->resident ? p.high - g->resident : 0;
}

bool group_is_easy(const struct group *g, uint64_t pages)
{
	return g->resident + pages < pressure_now(g).arm;
}

/* The staging windows are part of the programs' anonymous memory, and of their samples. */
void group_overhead(struct group *g)
{
	const uint64_t commands = bytes_to_pages(page_up(sizeof(struct exchange)));
	const struct task *t;

	g->overhead = g->reserved = 0;
	TAILQ_FOREACH(t, &g->tasks, link) {
		if (!t->exchange)
			continue;
		g->overhead += t->frames.peak + commands;
		g->reserved += t->frames.n + commands;
	}
}

/* A child that has not said hello has no descriptor that would tell of its end. */
static void look_for_life(struct task *t)
{
	if (uffd_classify(uffd_protect(t->uffd, t->sentinel, PAGE_SIZE, false)) == UFFD_ENDED)
		task_end(t);
}

/* A thread group whose first thread has ended: statm is empty, smaps_rollup still answers. (Or the
 * process is ending: then its pidfd tells.) */
static void sample_without_leader(struct task *t)
{
	uint64_t started = now_ns(), pss;

	if (started < t->adopt.next_walk || t->smaps_rollup < 0 ||
	    procmaps_pss_anon(t->smaps_rollup, &pss) < 0)
		return;
	t->adopt.anonymous = bytes_to_pages(pss);
	t->adopt.wanted = true;
	t->adopt.next_walk = now_ns() + 20 * (now_ns() - started);
}

static void sample_task(struct task *t)
{
	struct procmaps_statm statm;

	if (t->worker->now - t->refaults_at > REFAULTS_HALVE) {
		t->refaults_at = t->worker->now;
		t->refaults /= 2;
	}

	if (t->statm < 0) {
		look_for_life(t);
		return;
	}
	if (procmaps_statm(t->statm, &statm) < 0) {
		sample_without_leader(t);
		return;
	}
	t->adopt.anonymous = statm.resident > statm.shared ? statm.resident - statm.shared : 0;
	/* A child begins with what it shares; the next walk will know better. */
	if (!t->adopt.sampled && t->parent)
		t->group->shared += t->adopt.anonymous;
	t->adopt.sampled = true;
	if (statm.size != t->adopt.size || statm.data != t->adopt.data) {
		t->adopt.wanted = true;
		t->group->grown_at = t->worker->now;
	}
	t->adopt.size = statm.size;
	t->adopt.data = statm.data;
}

/* Pages that a fork shares are in several tasks' counts; Pss_Anon says how many are twice there. */
static void sample_shared(struct group *g, uint64_t sum)
{
	uint64_t pss_sum = 0, pss;
	const struct task *t;

	g->shared_at = g->worker->now;
	TAILQ_FOREACH(t, &g->tasks, link) {
		if (t->smaps_rollup < 0 || procmaps_pss_anon(t->smaps_rollup, &pss) < 0)
			continue;
		pss_sum += bytes_to_pages(pss);
	}
	g->shared = sum > pss_sum ? sum - pss_sum : 0;
	/* The walk costs what it costs: a hundredth of the time, no more. */
	g->shared_at = now_ns() + 99 * (now_ns() - g->shared_at);
}

static void publish_task(struct task *t)
{
	uint64_t overhead = t->exchange ? t->frames.peak + bytes_to_pages(EXCHANGE_FRAMES) : 0;

	t->published = (struct pager_task_stat){
		.id = t->id,
		.pid = t->pid,
		.parent = t->parent,
		.resident = pages_to_bytes(t->adopt.anonymous),
		.evicted = pages_to_bytes(t->table.evicted),
		.overhead = pages_to_bytes(overhead),
		.metadata = table_bytes(&t->table),
		.registered = t->registered,
		.regions = (unsigned)t->regions.n,
		.evictable = t->evictable,
		.counters = t->counters,
	};
}

static void counters_add(struct counters *sum, const struct counters *c)
{
#define X(name, text) sum->name += c->name;
	COUNTERS(X)
#undef X
}

void group_publish(struct group *g)
{
	struct pager_group_stat *s = &g->published;
	struct task *t;

	g->published_at = g->worker->now;
	pthread_mutex_lock(&g->worker->pager->registry);
	*s = (struct pager_group_stat){
		.limit = atomic_load(&g->limit),
		.resident = pages_to_bytes(g->resident + g->overhead),
		.peak = pages_to_bytes(g->peak),
		.overhead = pages_to_bytes(g->overhead),
		.armed = g->armed,
		.counters = g->ended,
	};
	TAILQ_FOREACH(t, &g->tasks, link) {
		publish_task(t);
		s->evicted += t->published.evicted;
		s->metadata += t->published.metadata;
		s->tasks++;
		counters_add(&s->counters, &t->counters);
	}
	pthread_mutex_unlock(&g->worker->pager->registry);
}

void group_arm(struct group *g)
{
	struct task *t;

	if (g->armed)
		return;
	g->armed = true;
	trace_armed(g);
	TAILQ_FOREACH(t, &g->tasks, link)
		adopt_scan(t);
	t = TAILQ_FIRST(&g->tasks);
	if (t)
		pager_notify(t, PAGER_NOTICE_GROUP_ARMED, 0, 0);
}

static void say_overrun(struct group *g, const struct pressure *p)
{
	uint64_t total = g->resident + g->overhead;
	struct task *t = TAILQ_FIRST(&g->tasks);

	if (total <= p->limit || !t) {
		g->overrun_at = 0;
	} else if (!g->overrun_at) {
		g->overrun_at = g->worker->now + 1000 * MS; /* a second of grace */
	} else if (g->worker->now > g->overrun_at) {
		g->overrun_at = g->worker->now + 10000 * MS;
		pager_notify(t, PAGER_NOTICE_OVERRUN, 0, pages_to_bytes(total - p->limit));
	}
}

void adopt_sample(struct group *g)
{
	struct worker *w = g->worker;
	uint64_t sum = 0, forked = 0, evictable = 0;
	struct pressure p;
	struct task *t, *next;

	for (t = TAILQ_FIRST(&g->tasks); t; t = next) {
		next = TAILQ_NEXT(t, link);
		sample_task(t);
		gate_watch(t);
		/* An event was still pending when they were last looked at, and no other has come. */
		if (!t->ended && (t->n_limbo || t->unmarked))
			limbo_purge(t);
		if (!t->ended && t->statm >= 0) {
			sum += t->adopt.anonymous;
			forked += t->forked;
			evictable += t->evictable;
		}
	}
	group_overhead(g);
	p = pressure_now(g);
	if (forked < 2)
		g->shared = 0;
	else if (sum > p.arm && w->now > g->shared_at + SHARED_EVERY)
		sample_shared(g, sum);
	g->resident = sum > g->shared ? sum - g->shared : 0;
	g->peak = MAX(g->peak, g->resident + g->overhead);
	if (!g->armed && evictable &&
	    (g->resident >= p.arm || w->pager->config.reg == PAGER_REGISTER_EAGER))
		group_arm(g);
	if (g->armed)
		TAILQ_FOREACH(t, &g->tasks, link)
			if (t->adopt.wanted)
				adopt_scan(t);
	say_overrun(g, &p);
	trace_sample(g);
	if (w->now - g->published_at >= PUBLISH_EVERY)
		group_publish(g);
	if (!g->armed)
		g->next_sample = w->now + pressure_interval_ns(&p, g->resident);
	else if (g->resident > p.arm && w->now - g->grown_at < GROWING)
		/* It maps and touches small pieces faster than they are found: look sooner, so that
		 * one is registered while it is being touched, and its faults wait. */
		g->next_sample = w->now + MS / 5;
	else
		g->next_sample = w->now + (w->now - g->active_at < ACTIVE ? 1 * MS : 4 * MS);
}

static bool hopeless(const struct group *g)
{
	const struct task *t;

	if (g->worker->now < g->hopeless_until || g->worker->now - g->full_at < HOPELESS)
		return true;
	TAILQ_FOREACH(t, &g->tasks, link)
		if (t->posted != t->reaped || t->under_way)
			return false;
	return true;
}

/* Called after eviction has been tried: who waits then, with nothing under way, would wait in
 * vain, and is let through. */
void group_wake(struct group *g)
{
	struct waiters again = TAILQ_HEAD_INITIALIZER(again);
	bool overrun = hopeless(g);
	struct waiter *w;

	if (overrun && g->worker->now >= g->hopeless_until)
		g->hopeless_until = g->worker->now + HOPELESS;

	TAILQ_CONCAT(&again, &g->waiters, link);
	while ((w = TAILQ_FIRST(&again))) {
		TAILQ_REMOVE(&again, w, link);
		if (w->task->ended)
			count(&w->task->counters, gone);
		else
			task_fault(w->task, w->address, w->write, w->protect, w->ptid, w->since,
				   overrun);
		free(w);
		if (!overrun && !group_room(g) && TAILQ_FIRST(&again) &&
		    g->worker->now - TAILQ_FIRST(&again)->since < 1000 * MS)
			break;
	}
	TAILQ_CONCAT(&g->waiters, &again, link);
}
