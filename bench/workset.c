/*
 * The working-set program: what the benchmarks run under upager, under kernel swap, and bare.
 *
 * It fills its memory first, which pushes the set over any limit below its size, then touches pages
 * in the order asked for and times that phase alone. A page carries its index and version, so every
 * read is checked: a figure from a run with a wrong page is no figure.
 *
 * Threads own disjoint pages (a share each, see page_at()), so nothing is locked and each version
 * is known. The versions are four bytes a page beside the set: part of the set, pageable like it.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include "base/size.h"

#define PAGE_BYTES  4096u
#define PAGE_WORDS  (PAGE_BYTES / sizeof(uint64_t))
#define MAX_THREADS 256u

enum pattern { SEQUENTIAL, CYCLIC, RANDOM, ZIPF };
enum op { READ, WRITE, READWRITE };
enum fill { FILL_RANDOM, FILL_TEXT, FILL_HEADER };

static const char *const pattern_names[] = {"sequential", "cyclic", "random", "zipf", NULL};
static const char *const op_names[] = {"read", "write", "readwrite", NULL};
static const char *const fill_names[] = {"random", "text", "header", NULL};

struct options {
	uint64_t size;
	uint64_t touches; /* of all threads together */
	uint64_t seed;
	double theta;
	unsigned threads;
	enum pattern pattern;
	enum op op;
	enum fill fill;
	bool verify;
	bool json;
};

/* What a rank of the zipf distribution is drawn from: Gray et al., SIGMOD 1994. */
struct zipf {
	uint64_t n;
	double theta, alpha, zeta, eta;
};

struct workset {
	const struct options *options;
	uint64_t *memory;
	uint32_t *versions;
	uint64_t pages;
	struct zipf zipf;
	pthread_barrier_t start;
};

struct share {
	struct workset *set;
	pthread_t thread;
	uint64_t first, pages; /* this thread's share, in contiguous order */
	uint64_t touches;
	uint64_t random;
	uint64_t wrong;
};

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15u;
	return mix(*state);
}

/* A number below n, without the bias or the cost of a division. */
static uint64_t below(uint64_t random, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)random * n) >> 64);
}

static void zipf_init(struct zipf *zipf, uint64_t n, double theta)
{
	double zeta = 0;

	for (uint64_t i = 1; i <= n; i++)
		zeta += 1 / pow((double)i, theta);
	zipf->n = n;
	zipf->theta = theta;
	zipf->zeta = zeta;
	zipf->alpha = 1 / (1 - theta);
	zipf->eta = (1 - pow(2 / (double)n, 1 - theta)) / (1 - (1 + pow(0.5, theta)) / zeta);
}

/* The rank, scattered over the share: hot pages are no neighbours. */
static uint64_t zipf_draw(const struct zipf *zipf, uint64_t random, uint64_t pages)
{
	const uint64_t prime = 2654435761u;
	double u = (double)(random >> 11) * 0x1p-53;
	double uz = u * zipf->zeta;
	uint64_t rank;

	if (uz < 1)
		rank = 0;
	else if (uz < 1 + pow(0.5, zipf->theta))
		rank = 1;
	else
		rank =
		    (uint64_t)((double)zipf->n * pow(zipf->eta * u - zipf->eta + 1, zipf->alpha));
	if (rank >= pages)
		rank = pages - 1;
	return (uint64_t)(((unsigned __int128)rank * prime) % pages);
}

/*
 * Page i of a share. Scans take a contiguous share; random touches go through the whole set, every
 * thread to its own pages, as the requests of a server do.
 */
static uint64_t page_at(const struct share *share, uint64_t i)
{
	const struct options *options = share->set->options;

	if (options->pattern == RANDOM || options->pattern == ZIPF)
		return share->first + i * options->threads;
	return share->first + i;
}

static uint64_t *page_words(const struct workset *set, uint64_t page)
{
	return set->memory + page * PAGE_WORDS;
}

static void page_write(struct workset *set, uint64_t page)
{
	volatile uint64_t *words = page_words(set, page);
	uint32_t version = ++set->versions[page];

	words[0] = page;
	words[1] = version;
	words[PAGE_WORDS - 1] = mix(page ^ ((uint64_t)version << 40));
}

static bool page_right(const struct workset *set, uint64_t page)
{
	const volatile uint64_t *words = page_words(set, page);
	uint32_t version = set->versions[page];

	return words[0] == page && words[1] == version &&
	       words[PAGE_WORDS - 1] == mix(page ^ ((uint64_t)version << 40));
}

/* The first few wrong pages, for whoever has to find out why. */
static void page_complain(const struct workset *set, uint64_t page)
{
	static unsigned said;
	const uint64_t *words = page_words(set, page);

	if (__atomic_fetch_add(&said, 1, __ATOMIC_RELAXED) >= 5)
		return;
	fprintf(stderr,
		"workset: page %" PRIu64 " at %p, version %" PRIu32 ": found index %" PRIu64
		", version %" PRIu64 ", seal %016" PRIx64 "\n",
		page, (const void *)words, set->versions[page], words[0], words[1],
		words[PAGE_WORDS - 1]);
}

/* The words between header and seal: the same for every version. */
static uint64_t body_word(const struct options *options, uint64_t page, uint64_t i)
{
	uint64_t random = mix(options->seed ^ (page * PAGE_WORDS + i));

	if (options->fill == FILL_RANDOM)
		return random;
	/* Every third word is random: two to three times compressible. */
	return i % 3 == 0 ? random : 0x2020202020202020u + (page & 7);
}

static bool body_right(const struct workset *set, uint64_t page)
{
	const uint64_t *words = page_words(set, page);

	if (set->options->fill == FILL_HEADER)
		return true;
	for (uint64_t i = 2; i < PAGE_WORDS - 1; i++)
		if (words[i] != body_word(set->options, page, i))
			return false;
	return true;
}

static void page_setup(struct workset *set, uint64_t page)
{
	uint64_t *words = page_words(set, page);

	page_write(set, page);
	if (set->options->fill == FILL_HEADER)
		return;
	for (uint64_t i = 2; i < PAGE_WORDS - 1; i++)
		words[i] = body_word(set->options, page, i);
}

static void touch(struct share *share, uint64_t page)
{
	enum op op = share->set->options->op;

	if (op != WRITE && !page_right(share->set, page)) {
		page_complain(share->set, page);
		share->wrong++;
	}
	if (op != READ)
		page_write(share->set, page);
}

static void *share_run(void *arg)
{
	struct share *share = arg;
	struct workset *set = share->set;
	enum pattern pattern = set->options->pattern;

	pthread_barrier_wait(&set->start);
	for (uint64_t i = 0; i < share->touches; i++) {
		uint64_t at = i % share->pages;

		if (pattern == RANDOM)
			at = below(next_random(&share->random), share->pages);
		else if (pattern == ZIPF)
			at = zipf_draw(&set->zipf, next_random(&share->random), share->pages);
		touch(share, page_at(share, at));
	}
	return NULL;
}

static void share_init(struct share *share, struct workset *set, unsigned index)
{
	const struct options *options = set->options;
	unsigned threads = options->threads;
	bool scattered = options->pattern == RANDOM || options->pattern == ZIPF;
	uint64_t end = set->pages * (index + 1) / threads;

	share->set = set;
	share->first = scattered ? index : set->pages * index / threads;
	share->pages =
	    scattered ? (set->pages - index + threads - 1) / threads : end - share->first;
	share->touches =
	    options->touches * (index + 1) / threads - options->touches * index / threads;
	share->random = mix(options->seed + index);
}

static void die(const char *what, int error)
{
	fprintf(stderr, "workset: %s: %s\n", what, strerror(error));
	exit(2);
}

static void *map(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		die("cannot map the set", errno);
	return memory;
}

struct result {
	uint64_t setup_ns, measured_ns, verify_ns;
	uint64_t wrong, wrong_at_end;
	long minor, major;
};

static void measure(struct workset *set, struct result *ret_result)
{
	unsigned threads = set->options->threads;
	struct share shares[MAX_THREADS] = {};
	struct rusage before, after;
	uint64_t started;

	pthread_barrier_init(&set->start, NULL, threads + 1);
	for (unsigned i = 0; i < threads; i++) {
		int r;

		share_init(&shares[i], set, i);
		r = pthread_create(&shares[i].thread, NULL, share_run, &shares[i]);
		if (r)
			die("cannot start a thread", r);
	}
	getrusage(RUSAGE_SELF, &before);
	started = now_ns();
	pthread_barrier_wait(&set->start);
	for (unsigned i = 0; i < threads; i++)
		pthread_join(shares[i].thread, NULL);
	ret_result->measured_ns = now_ns() - started;
	getrusage(RUSAGE_SELF, &after);
	pthread_barrier_destroy(&set->start);

	ret_result->minor = after.ru_minflt - before.ru_minflt;
	ret_result->major = after.ru_majflt - before.ru_majflt;
	for (unsigned i = 0; i < threads; i++)
		ret_result->wrong += shares[i].wrong;
}

static void run(const struct options *options, struct result *ret_result)
{
	struct workset set = {.options = options, .pages = options->size / PAGE_BYTES};
	uint64_t started;

	if (options->pattern == ZIPF)
		zipf_init(&set.zipf, (set.pages + options->threads - 1) / options->threads,
			  options->theta);
	set.memory = map(options->size);
	set.versions = map(set.pages * sizeof(*set.versions));

	started = now_ns();
	for (uint64_t page = 0; page < set.pages; page++)
		page_setup(&set, page);
	ret_result->setup_ns = now_ns() - started;

	measure(&set, ret_result);

	if (options->verify) {
		started = now_ns();
		for (uint64_t page = 0; page < set.pages; page++)
			if (!page_right(&set, page) || !body_right(&set, page)) {
				page_complain(&set, page);
				ret_result->wrong_at_end++;
			}
		ret_result->verify_ns = now_ns() - started;
	}
}

static void print_result(const struct options *options, const struct result *result)
{
	double per_touch = (double)result->measured_ns / (double)options->touches;

	if (!options->json) {
		printf("%s %s, %u thread%s, %" PRIu64 " MiB: %.0f ns a page touched, %" PRIu64
		       " touches, %" PRIu64 " wrong\n",
		       pattern_names[options->pattern], op_names[options->op], options->threads,
		       options->threads == 1 ? "" : "s", options->size >> 20, per_touch,
		       options->touches, result->wrong + result->wrong_at_end);
		return;
	}
	printf("{\"pattern\": \"%s\", \"op\": \"%s\", \"threads\": %u, \"size\": %" PRIu64
	       ", \"touches\": %" PRIu64 ", \"ns_per_touch\": %.1f, \"setup_ns\": %" PRIu64
	       ", \"measured_ns\": %" PRIu64 ", \"verify_ns\": %" PRIu64 ", \"verified\": %s"
	       ", \"wrong\": %" PRIu64 ", \"minor_faults\": %ld, \"major_faults\": %ld}\n",
	       pattern_names[options->pattern], op_names[options->op], options->threads,
	       options->size, options->touches, per_touch, result->setup_ns, result->measured_ns,
	       result->verify_ns, options->verify ? "true" : "false",
	       result->wrong + result->wrong_at_end, result->minor, result->major);
}

static const char usage_text[] =
    "usage: workset [OPTION]...\n"
    "Fill memory, then touch its pages and time that.\n\n"
    "  --size SIZE        bytes of the set, with a binary suffix (512M)\n"
    "  --pattern PATTERN  sequential, cyclic, random or zipf (sequential)\n"
    "  --op OP            read, write or readwrite (read)\n"
    "  --threads N        1 to 256; each owns a share of the pages (1)\n"
    "  --passes N         touch as many pages as N rounds over the set do (1; cyclic 4)\n"
    "  --touches N        the same as a number of touches, of all threads together\n"
    "  --theta X          skew of zipf, 0 < X < 1 (0.99)\n"
    "  --fill FILL        the rest of a page: random, text (two to three times\n"
    "                     compressible) or header (zeros, three words are written) (random)\n"
    "  --seed N           of contents and order (1)\n"
    "  --verify           read the whole set once more at the end, outside the measured time\n"
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

static uint64_t parse_bytes(const char *text)
{
	uint64_t size;

	if (size_parse(text, &size) < 0 || size < PAGE_BYTES)
		usage_error("size", text);
	return size & ~(uint64_t)(PAGE_BYTES - 1);
}

static const struct option long_options[] = {
    {"size", required_argument, NULL, 's'},
    {"pattern", required_argument, NULL, 'p'},
    {"op", required_argument, NULL, 'o'},
    {"threads", required_argument, NULL, 't'},
    {"passes", required_argument, NULL, 'n'},
    {"touches", required_argument, NULL, 'c'},
    {"theta", required_argument, NULL, 'z'},
    {"fill", required_argument, NULL, 'f'},
    {"seed", required_argument, NULL, 'r'},
    {"verify", no_argument, NULL, 'v'},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {},
};

static void parse_options(int argc, char **argv, struct options *ret_options)
{
	struct options o = {.size = 512u << 20, .seed = 1, .theta = 0.99, .threads = 1};
	uint64_t passes = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 's':
			o.size = parse_bytes(optarg);
			break;
		case 'p':
			o.pattern = (enum pattern)parse_name("pattern", optarg, pattern_names);
			break;
		case 'o':
			o.op = (enum op)parse_name("op", optarg, op_names);
			break;
		case 't':
			o.threads = (unsigned)parse_number("threads", optarg, 1, MAX_THREADS);
			break;
		case 'n':
			passes = parse_number("passes", optarg, 1, 1u << 30);
			break;
		case 'c':
			o.touches = parse_number("touches", optarg, 1, UINT64_MAX >> 9);
			break;
		case 'z':
			o.theta = parse_theta(optarg);
			break;
		case 'f':
			o.fill = (enum fill)parse_name("fill", optarg, fill_names);
			break;
		case 'r':
			o.seed = parse_number("seed", optarg, 0, UINT64_MAX);
			break;
		case 'v':
			o.verify = true;
			break;
		case 'j':
			o.json = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(0);
		default:
			exit(2);
		}
	}
	if (optind < argc) {
		fprintf(stderr, "workset: unexpected argument '%s'\n", argv[optind]);
		exit(2);
	}
	if (o.size / PAGE_BYTES < o.threads)
		usage_error("size", "less than a page a thread");
	if (!passes)
		passes = o.pattern == CYCLIC ? 4 : 1;
	if (!o.touches)
		o.touches = passes * (o.size / PAGE_BYTES);
	*ret_options = o;
}

int main(int argc, char **argv)
{
	struct options options;
	struct result result = {};

	parse_options(argc, argv, &options);
	run(&options, &result);
	print_result(&options, &result);
	return result.wrong + result.wrong_at_end ? 1 : 0;
}
