/* What replacement policies make of traces: a table, or JSON. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"
#include "base/util.h"
#include "policy/victim.h"
#include "sim.h"

static const struct victim_policy *const policies[] = {&victim_2q, &victim_clock};

static const char usage_text[] =
    "usage: sim [OPTION]... [PATTERN | FILE]...\n"
    "What replacement policies make of patterns (all of them, if none is named), or of traces in\n"
    "files: recordings of `upager trace` or `upager run --trace`; text, an address a line, \"w\"\n"
    "after it if it is a write; or binary, \"pagetrc1\" and 64-bit words, bit 0 set in writes.\n\n"
    "  --memory SIZE     the limit (64M)\n"
    "  --frames SIZE     of it for standby (what the pager takes)\n"
    "  --readahead N     largest window, pages (128)\n"
    "  --patterns        lists the patterns\n"
    "  --json            one JSON object a line\n\n"
    "Per touch: faults that waited for a read, pages read, faults answered from standby, pages that\n"
    "left, and an estimate of the time. The first four policies know more than a pager can, hold as\n"
    "many pages as the limit, and have no readahead.\n\n"
    "A recording has faults, what came in with them, and discarded memory, but no touches of what was\n"
    "resident. So record with little memory, and simulate more, at least twice as much:\n\n"
    "  upager run --memory 16M --trace FILE -- PROGRAM\n"
    "  sim --memory 64M FILE\n\n"
    "Under as little as it was recorded with, or less, hits are missing: what is in use looks like\n"
    "what is used once, which favours FIFO. Pages that came in unasked count as touched if the\n"
    "program goes on where they end; recorded with \"readahead_pages\": 1, hardly any come.\n";

struct options {
	uint64_t memory, frames;
	uint32_t readahead;
	bool json;
};

static const char *what;

static void show_progress(uint64_t done, uint64_t all)
{
	fprintf(stderr, "\r\033[K%s %" PRIu64 " %%", what, done * 100 / all);
	fflush(stderr);
}

static double per_touch(const struct outcome *o, double n)
{
	return o->touches ? n / (double)o->touches : 0;
}

static void print_outcome(const struct options *options, const char *trace, const char *policy,
			  const struct outcome *o)
{
	if (isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
	if (options->json) {
		printf("{\"trace\": \"%s\", \"policy\": \"%s\", \"memory\": %" PRIu64
		       ", \"touches\": %" PRIu64 ", \"fresh\": %" PRIu64 ", \"faults\": %" PRIu64
		       ", \"reads\": %" PRIu64 ", \"standby\": %" PRIu64 ", \"out\": %" PRIu64
		       ", \"out_runs\": %" PRIu64 ", \"writes\": %" PRIu64
		       ", \"us_per_touch\": %.3f}\n",
		       trace, policy, options->memory, o->touches, o->fresh, o->faults, o->reads,
		       o->standby, o->out, o->out_runs, o->writes, per_touch(o, o->us));
		return;
	}
	printf("  %-8s %8.4f %8.4f %8.4f %8.4f %9.2f\n", policy, per_touch(o, (double)o->faults),
	       per_touch(o, (double)o->reads), per_touch(o, (double)o->standby),
	       per_touch(o, (double)o->out), per_touch(o, o->us));
	fflush(stdout);
}

static void simulate(const struct options *options, const char *name, const struct trace *trace)
{
	uint32_t limit = (uint32_t)bytes_to_pages(options->memory);
	sim_progress *progress = isatty(STDERR_FILENO) ? show_progress : NULL;
	struct outcome outcome;

	if (!options->json)
		printf("%s: %u pages, limit %u, %" PRIu64 " touches\n  %-8s %8s %8s %8s %8s %9s\n", name,
		       trace->n_pages, limit, trace->n - trace->warm - trace->discards, "policy",
		       "faults", "read", "standby", "out", "us");
	for (const struct reference *r = references; r->name; r++) {
		what = r->name;
		reference_run(r, trace, limit, progress, &outcome);
		print_outcome(options, name, r->name, &outcome);
	}
	for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
		struct model model = {policies[i], limit, (uint32_t)bytes_to_pages(options->frames),
				      options->readahead};

		what = policies[i]->name;
		model_run(&model, trace, progress, &outcome);
		print_outcome(options, name, policies[i]->name, &outcome);
	}
}

/* => status */
static int say_unreadable(const char *path, const struct source *source, int error)
{
	uint64_t offset = source->recording.offset;

	fprintf(stderr, "sim: %s: ", path);
	if (source->line)
		fprintf(stderr, "line %" PRIu64 ": neither an address nor an address and \"w\"; and the "
			"file does not begin as a recording does\n", source->line);
	else if (error == -EBADMSG && !offset)
		fprintf(stderr, "it begins as a recording does, but its header is cut or damaged\n");
	else if (error == -EBADMSG)
		fprintf(stderr, "byte %" PRIu64 ": this is no record, so the recording is damaged; what "
			"comes before it: upager trace --convert text\n", offset);
	else if (error == -EPROTONOSUPPORT)
		fprintf(stderr, "it was recorded by another version of upager; record it anew\n");
	else if (error == -EFBIG)
		fprintf(stderr, "it has more than %u pages, gaps included\n", TRACE_PAGES_MAX);
	else if (error == -ENOENT)
		fprintf(stderr, "no such file (nor is it a pattern: --patterns lists them)\n");
	else
		fprintf(stderr, "%s\n", strerror(-error));
	return 1;
}

/* What the figures do not say. */
static void say_recorded(const struct options *options, const char *path, const struct recording *r)
{
	char size[24];

	if (!options->json)
		printf("%s: recorded under %s: %" PRIu64 " tasks, %" PRIu64 " faults, %" PRIu64
		       " touches of what came with them, %" PRIu64 " pages discarded\n", path,
		       r->limit ? size_format(pages_to_bytes(r->limit), size) : "an unknown limit",
		       r->tasks, r->faults, r->along, r->discarded);
	if (r->lost)
		fprintf(stderr, "sim: %s: %" PRIu64 " records had no room when it was recorded: there faults "
			"are missing\n", path, r->lost);
	if (!r->whole)
		fprintf(stderr, "sim: %s: it has no end but stops at byte %" PRIu64 ": whoever wrote it was "
			"stopped, or it was cut; what comes before is replayed\n", path, r->offset);
	if (bytes_to_pages(options->memory) <= r->limit)
		fprintf(stderr, "sim: %s: it was recorded under %s, so at --memory %s hits are missing "
			"from it, which favours FIFO; simulate more, or record with less\n", path,
			size_format(pages_to_bytes(r->limit), size),
			size_format(options->memory, (char[24]){0}));
}

static int simulate_file(const struct options *options, const char *path)
{
	struct source source;
	struct trace trace;
	bool empty;
	int r = trace_read(path, &trace, &source);

	if (r < 0)
		return say_unreadable(path, &source, r);
	if (source.kind == SOURCE_RECORDING)
		say_recorded(options, path, &source.recording);
	empty = source.kind == SOURCE_RECORDING && !source.recording.faults;
	if (empty)
		fprintf(stderr, "sim: %s: there are no faults in it, so nothing to replay; if the program "
			"stayed below its limit, record with a smaller one\n", path);
	else
		simulate(options, path, &trace);
	trace_done(&trace);
	return empty;
}

static void simulate_pattern(const struct options *options, const struct pattern *pattern)
{
	struct trace trace;

	trace_make(&trace, pattern, (uint32_t)bytes_to_pages(options->memory));
	simulate(options, pattern->name, &trace);
	trace_done(&trace);
}

_Noreturn static void usage_error(const char *option, const char *value)
{
	fprintf(stderr, "sim: --%s: bad value '%s' (--help lists the options)\n", option, value);
	exit(2);
}

static uint64_t parse_size(const char *option, const char *text, uint64_t min, uint64_t max)
{
	uint64_t size;

	if (size_parse(text, &size) < 0 || size < min || size > max)
		usage_error(option, text);
	return size;
}

static void parse_options(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {
		{"memory", required_argument, NULL, 'm'}, {"frames", required_argument, NULL, 'f'},
		{"readahead", required_argument, NULL, 'r'}, {"patterns", no_argument, NULL, 'p'},
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'm':
			o->memory = parse_size("memory", optarg, 16 << 20, 1ull << 40);
			break;
		case 'f':
			o->frames = parse_size("frames", optarg, 1 << 18, 1ull << 36);
			break;
		case 'r':
			o->readahead = (uint32_t)parse_size("readahead", optarg, 1, 512);
			break;
		case 'p':
			for (const struct pattern *p = patterns; p->name; p++)
				printf("%-16s  %s\n", p->name, p->meaning);
			exit(0);
		case 'j':
			o->json = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(0);
		default:
			exit(2);
		}
	}
	if (o->frames >= o->memory / 2)
		usage_error("frames", "as much as half the limit");
}

int main(int argc, char **argv)
{
	struct options options = {.memory = 64 << 20, .readahead = 128};
	int failed = 0;

	parse_options(argc, argv, &options);
	if (optind == argc)
		for (const struct pattern *p = patterns; p->name; p++)
			simulate_pattern(&options, p);
	for (int i = optind; i < argc; i++) {
		const struct pattern *p = patterns;

		while (p->name && strcmp(p->name, argv[i]))
			p++;
		if (p->name)
			simulate_pattern(&options, p);
		else
			failed |= simulate_file(&options, argv[i]);
	}
	return failed;
}
