/*
 * The working-set program: what the benchmarks run under upager, under kernel swap, and bare.
 *
 * It fills its memory first, which pushes the set over any limit below its size, then touches pages
 * in the order asked for and times that phase alone. Every read is checked: a figure from a run
 * with a wrong page is no figure.
 *
 * Several processes and threads share the work: each process has its own set, each thread its own
 * pages of it. All begin at the same moment; the last to end stops the clock.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/size.h"
#include "now.h"
#include "set.h"
#include "zipf.h"

#define MAX_THREADS   256u
#define MAX_PROCESSES 1024u

enum pattern { SEQUENTIAL, CYCLIC, RANDOM, ZIPF };
enum op { READ, WRITE, READWRITE };

static const char *const pattern_names[] = {"sequential", "cyclic", "random", "zipf", NULL};
static const char *const op_names[] = {"read", "write", "readwrite", NULL};
static const char *const fill_names[] = {"random", "text", "header", NULL};

struct options {
	struct set_options set; /* of all processes together */
	uint64_t touches;	/* the same */
	double theta;
	unsigned threads, processes;
	enum pattern pattern;
	enum op op;
	bool verify, steps, json;
};

struct result {
	uint64_t wrong;
	long minor, major;
};

/* Shared by the processes. */
struct crew {
	pthread_barrier_t ready;   /* processes: the sets are filled */
	pthread_barrier_t start;   /* threads, and the main one of the first process */
	pthread_barrier_t touched; /* processes */
	pthread_barrier_t checked; /* processes */
	struct result results[MAX_PROCESSES];
};

struct member {
	const struct options *options;
	struct crew *crew;
	struct set set;
	struct zipf zipf;
	unsigned index;
};

struct share {
	struct member *member;
	pthread_t thread;
	uint64_t first, pages, stride; /* page i of the share is first + i * stride */
	uint64_t touches;
	uint64_t random;
	uint64_t wrong;
};

struct times {
	uint64_t setup_ns, measured_ns, verify_ns;
};

static _Noreturn void die(const char *what, int error)
{
	fprintf(stderr, "workset: %s: %s\n", what, strerror(error));
	exit(2);
}

/*
 * Scans take a contiguous share; random touches go through the whole set, every thread to its own
 * pages, as the requests of a server do.
 */
static bool scattered(const struct options *options)
{
	return options->pattern == RANDOM || options->pattern == ZIPF;
}

static void touch(struct share *share, uint64_t page)
{
	struct set *set = &share->member->set;
	enum op op = share->member->options->op;

	if (op != WRITE)
		share->wrong += !set_check(set, page);
	if (op != READ)
		set_write(set, page);
}

static void *share_run(void *arg)
{
	struct share *share = arg;
	struct member *member = share->member;
	enum pattern pattern = member->options->pattern;

	pthread_barrier_wait(&member->crew->start);
	for (uint64_t i = 0; i < share->touches; i++) {
		uint64_t at = i % share->pages;

		if (pattern == RANDOM)
			at = below(next_random(&share->random), share->pages);
		else if (pattern == ZIPF)
			at = zipf_draw(&member->zipf, next_random(&share->random), share->pages);
		touch(share, share->first + at * share->stride);
	}
	return NULL;
}

/* Part `index` of `parts` of the touches. */
static uint64_t touches_of(const struct options *options, unsigned index, unsigned parts)
{
	return options->touches * (index + 1) / parts - options->touches * index / parts;
}

static void share_init(struct share *share, struct member *member, unsigned index)
{
	const struct options *options = member->options;
	uint64_t pages = member->set.pages;
	unsigned threads = options->threads;
	unsigned worker = member->index * threads + index;

	share->member = member;
	share->first = scattered(options) ? index : pages * index / threads;
	share->stride = scattered(options) ? threads : 1;
	share->pages = scattered(options) ? (pages - index + threads - 1) / threads
					  : pages * (index + 1) / threads - share->first;
	share->touches = touches_of(options, worker, threads * options->processes);
	share->random = mix(options->set.seed + worker);
}

/* Says how far it has come, and waits for a line: somebody looks at the processes meanwhile. */
static void step(const struct options *options, const char *word)
{
	char line[16];

	if (!options->steps)
		return;
	printf("%s\n", word);
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		exit(2);
}

/* => how long the touches of all have taken, in the first process. */
static uint64_t measure(struct member *member, struct result *result)
{
	unsigned threads = member->options->threads;
	struct share shares[MAX_THREADS] = {};
	struct rusage before, after;
	uint64_t started = 0;

	for (unsigned i = 0; i < threads; i++) {
		int r;

		share_init(&shares[i], member, i);
		r = pthread_create(&shares[i].thread, NULL, share_run, &shares[i]);
		if (r)
			die("cannot start a thread", r);
	}
	getrusage(RUSAGE_SELF, &before);
	if (member->index == 0) {
		started = now_ns();
		pthread_barrier_wait(&member->crew->start);
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(shares[i].thread, NULL);
	getrusage(RUSAGE_SELF, &after);
	pthread_barrier_wait(&member->crew->touched);
	for (unsigned i = 0; i < threads; i++)
		result->wrong += shares[i].wrong;
	result->minor = after.ru_minflt - before.ru_minflt;
	result->major = after.ru_majflt - before.ru_majflt;
	return now_ns() - started;
}

static void work(struct member *member, struct times *ret_times)
{
	const struct options *options = member->options;
	struct set_options mine = options->set;
	struct result *result = &member->crew->results[member->index];
	struct times times = {};
	uint64_t started = now_ns();
	int r;

	mine.size = options->set.size / options->processes & ~(uint64_t)(PAGE_BYTES - 1);
	mine.seed += member->index;
	r = set_new(&mine, &member->set);
	if (r < 0)
		die("cannot map the set", -r);
	times.setup_ns = now_ns() - started;
	if (options->pattern == ZIPF)
		zipf_init(&member->zipf,
			  (member->set.pages + options->threads - 1) / options->threads,
			  options->theta);
	pthread_barrier_wait(&member->crew->ready);
	if (member->index == 0)
		step(options, "ready");
	times.measured_ns = measure(member, result);
	if (member->index == 0)
		step(options, "measured");
	started = now_ns();
	if (options->verify)
		result->wrong += set_check_all(&member->set);
	times.verify_ns = now_ns() - started;
	pthread_barrier_wait(&member->crew->checked);
	*ret_times = times;
}

static void barrier_init(pthread_barrier_t *barrier, unsigned count)
{
	pthread_barrierattr_t attr;

	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	if (pthread_barrier_init(barrier, &attr, count))
		die("cannot make a barrier", EINVAL);
}

static struct crew *crew_new(const struct options *options)
{
	struct crew *crew =
	    mmap(NULL, sizeof(*crew), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (crew == MAP_FAILED)
		die("cannot map what the processes share", errno);
	barrier_init(&crew->ready, options->processes);
	barrier_init(&crew->start, options->processes * options->threads + 1);
	barrier_init(&crew->touched, options->processes);
	barrier_init(&crew->checked, options->processes);
	return crew;
}

/* One that ends badly would leave the others at a barrier for ever. */
static void on_child(int number)
{
	int status;

	(void)number;
	while (waitpid(-1, &status, WNOHANG) > 0)
		if (status)
			_exit(2);
}

/* The first process is this one; the others end here, and with it. */
static void run(const struct options *options, struct result *ret_result, struct times *ret_times)
{
	struct member member = {.options = options, .crew = crew_new(options)};

	signal(SIGCHLD, on_child);
	for (unsigned i = 1; i < options->processes; i++) {
		pid_t child = fork();

		if (child < 0)
			die("cannot start a process", errno);
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			member.index = i;
			work(&member, ret_times);
			_exit(0);
		}
	}
	work(&member, ret_times);
	for (unsigned i = 0; i < options->processes; i++) {
		ret_result->wrong += member.crew->results[i].wrong;
		ret_result->minor += member.crew->results[i].minor;
		ret_result->major += member.crew->results[i].major;
	}
}

static void print_result(const struct options *options, const struct result *result,
			 const struct times *times)
{
	double per_touch = (double)times->measured_ns / (double)options->touches;

	if (!options->json) {
		printf("%s %s, %u × %u threads, %" PRIu64 " MiB: %.0f ns a page touched, %" PRIu64
		       " touches, %" PRIu64 " wrong\n",
		       pattern_names[options->pattern], op_names[options->op], options->processes,
		       options->threads, options->set.size >> 20, per_touch, options->touches,
		       result->wrong);
		return;
	}
	printf("{\"pattern\": \"%s\", \"op\": \"%s\", \"threads\": %u, \"processes\": %u"
	       ", \"size\": %" PRIu64 ", \"touches\": %" PRIu64 ", \"ns_per_touch\": %.1f"
	       ", \"setup_ns\": %" PRIu64 ", \"measured_ns\": %" PRIu64 ", \"verify_ns\": %" PRIu64
	       ", \"verified\": %s, \"wrong\": %" PRIu64 ", \"minor_faults\": %ld"
	       ", \"major_faults\": %ld}\n",
	       pattern_names[options->pattern], op_names[options->op], options->threads,
	       options->processes, options->set.size, options->touches, per_touch, times->setup_ns,
	       times->measured_ns, times->verify_ns, options->verify ? "true" : "false",
	       result->wrong, result->minor, result->major);
}

static const char usage_text[] =
    "usage: workset [OPTION]...\n"
    "Fill memory, then touch its pages and time that.\n\n"
    "  --size SIZE        bytes of the set, with a binary suffix (512M)\n"
    "  --pattern PATTERN  sequential, cyclic, random or zipf (sequential)\n"
    "  --op OP            read, write or readwrite (read)\n"
    "  --threads N        1 to 256; each owns a share of the pages (1)\n"
    "  --processes N      1 to 1024; each has its part of the set, and N threads (1)\n"
    "  --passes N         touch as many pages as N rounds over the set do (1; cyclic 4)\n"
    "  --touches N        the same as a number of touches, of all together\n"
    "  --theta X          skew of zipf, 0 < X < 1 (0.99)\n"
    "  --fill FILL        the rest of a page: random, text (two to three times\n"
    "                     compressible) or header (zeros, three words are written) (random)\n"
    "  --spread SIZE      spread the pages, 16 together, over so much address space\n"
    "  --vmas N           split the set into N mappings (1)\n"
    "  --seed N           of contents and order (1)\n"
    "  --verify           read the whole set once more at the end, outside the measured time\n"
    "  --steps            print \"ready\" and \"measured\" before and after the measured phase,\n"
    "                     and wait for a line each time\n"
    "  --json             print one JSON object\n\n"
    "Exit status: 0, 1 if a page was wrong, 2 if it could not run.\n";

_Noreturn static void usage_error(const char *option, const char *value)
{
	fprintf(stderr, "workset: --%s: bad value '%s' (--help lists the options)\n", option,
		value);
	exit(2);
}

static uint64_t parse_number(const char *option, const char *text, uint64_t min, uint64_t max)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || n < min || n > max)
		usage_error(option, text);
	return n;
}

static int parse_name(const char *option, const char *text, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (!strcmp(text, names[i]))
			return i;
	usage_error(option, text);
}

static double parse_theta(const char *text)
{
	char *end;
	double theta = strtod(text, &end);

	if (end == text || *end || !(theta > 0 && theta < 1))
		usage_error("theta", text);
	return theta;
}

static uint64_t parse_bytes(const char *option, const char *text)
{
	uint64_t size;

	if (size_parse(text, &size) < 0 || size < PAGE_BYTES)
		usage_error(option, text);
	return size & ~(uint64_t)(PAGE_BYTES - 1);
}

static const struct option long_options[] = {
    {"size", required_argument, NULL, 's'},
    {"pattern", required_argument, NULL, 'p'},
    {"op", required_argument, NULL, 'o'},
    {"threads", required_argument, NULL, 't'},
    {"processes", required_argument, NULL, 'P'},
    {"passes", required_argument, NULL, 'n'},
    {"touches", required_argument, NULL, 'c'},
    {"theta", required_argument, NULL, 'z'},
    {"fill", required_argument, NULL, 'f'},
    {"spread", required_argument, NULL, 'S'},
    {"vmas", required_argument, NULL, 'm'},
    {"seed", required_argument, NULL, 'r'},
    {"verify", no_argument, NULL, 'v'},
    {"steps", no_argument, NULL, 'w'},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {},
};

static void parse_option(int c, struct options *o, uint64_t *passes)
{
	switch (c) {
	case 's':
		o->set.size = parse_bytes("size", optarg);
		break;
	case 'p':
		o->pattern = (enum pattern)parse_name("pattern", optarg, pattern_names);
		break;
	case 'o':
		o->op = (enum op)parse_name("op", optarg, op_names);
		break;
	case 't':
		o->threads = (unsigned)parse_number("threads", optarg, 1, MAX_THREADS);
		break;
	case 'P':
		o->processes = (unsigned)parse_number("processes", optarg, 1, MAX_PROCESSES);
		break;
	case 'n':
		*passes = parse_number("passes", optarg, 1, 1u << 30);
		break;
	case 'c':
		o->touches = parse_number("touches", optarg, 1, UINT64_MAX >> 20);
		break;
	case 'z':
		o->theta = parse_theta(optarg);
		break;
	case 'f':
		o->set.fill = (enum fill)parse_name("fill", optarg, fill_names);
		break;
	case 'S':
		o->set.spread = parse_bytes("spread", optarg);
		break;
	case 'm':
		o->set.vmas = parse_number("vmas", optarg, 1, 1u << 30);
		break;
	case 'r':
		o->set.seed = parse_number("seed", optarg, 0, UINT64_MAX);
		break;
	case 'v':
		o->verify = true;
		break;
	case 'w':
		o->steps = true;
		break;
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

static void parse_options(int argc, char **argv, struct options *ret_options)
{
	struct options o = {.set = {.size = 512u << 20, .vmas = 1, .seed = 1},
			    .theta = 0.99,
			    .threads = 1,
			    .processes = 1};
	uint64_t passes = 0, pages;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		parse_option(c, &o, &passes);
	if (optind < argc) {
		fprintf(stderr, "workset: unexpected argument '%s'\n", argv[optind]);
		exit(2);
	}
	pages = o.set.size / PAGE_BYTES;
	if (pages / o.processes < o.threads || pages / o.processes < o.set.vmas)
		usage_error("size", "less than a page a thread, or a mapping");
	if (!passes)
		passes = o.pattern == CYCLIC ? 4 : 1;
	if (!o.touches)
		o.touches = passes * pages;
	*ret_options = o;
}

int main(int argc, char **argv)
{
	struct options options;
	struct result result = {};
	struct times times = {};

	parse_options(argc, argv, &options);
	run(&options, &result, &times);
	print_result(&options, &result, &times);
	return result.wrong ? 1 : 0;
}
