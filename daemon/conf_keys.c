/* The one list of what can be configured. */
#include "conf.h"

#define TOP(type_, name_, field, ...)                                                              \
	{                                                                                          \
		.section = CONF_TOP, .type = type_, .name = name_,                                 \
		.offset = offsetof(struct conf, field), __VA_ARGS__                                \
	}
#define SWAP(type_, name_, ...)                                                                    \
	{                                                                                          \
		.section = CONF_SWAP, .type = CONF_##type_, .name = #name_,                        \
		.offset = offsetof(struct pager_swap, name_), __VA_ARGS__                          \
	}
#define COMPRESSED(type_, name_, ...)                                                              \
	{                                                                                          \
		.section = CONF_COMPRESSED, .type = CONF_##type_, .name = #name_,                  \
		.offset = offsetof(struct conf, pager.compressed.name_), __VA_ARGS__               \
	}
#define FEATURE(name_, bit, ...)                                                                   \
	{                                                                                          \
		.section = CONF_FEATURES, .type = CONF_FEATURE, .name = name_,                     \
		.offset = offsetof(struct conf, pager.features), .max = bit, .unit = "",           \
		.fallback = "true", .meaning = __VA_ARGS__                                         \
	}

static const char *const registers[] = {
    [PAGER_REGISTER_LAZY] = "lazy", [PAGER_REGISTER_EAGER] = "eager", NULL};
static const char *const cleans[] = {[PAGER_CLEAN_HASH] = "hash", [PAGER_CLEAN_WP] = "wp", NULL};
static const char *const policies[] = {
    [PAGER_POLICY_2Q] = "2q", [PAGER_POLICY_CLOCK] = "clock", NULL};
static const char *const on_fulls[] = {
    [PAGER_ON_FULL_OVERRUN] = "overrun", [PAGER_ON_FULL_KILL] = "kill", NULL};
static const char *const algorithms[] = {[PAGER_LZ4] = "lz4", [PAGER_ZSTD] = "zstd", NULL};

const struct conf_key conf_keys[] = {
    TOP(CONF_PATH, "socket", socket, .unit = "", .fallback = "\"/run/upager/upagerd.sock\"",
	.meaning = "where the control socket is made; the session socket stands beside it, "
		   "with \".session\" appended"),
    TOP(CONF_PATH, "runtime_dir", runtime_dir, .unit = "", .fallback = "\"/run/upager\"",
	.meaning = "directory of what lives as long as the daemon; if it is not on a tmpfs, "
		   "page tables go to a private directory under /dev/shm"),
    TOP(CONF_UINT, "workers", pager.workers, .min = 1, .max = 64, .unit = "threads",
	.fallback = "1", .meaning = "threads that serve faults; a task belongs to one"),
    TOP(CONF_CHOICE, "register", pager.reg, .choices = registers, .unit = "",
	.fallback = "\"lazy\"",
	.meaning = "when memory is registered: lazy, as the limit nears (no cost before), or "
		   "eager, at once (every fault is seen)"),
    TOP(CONF_CHOICE, "clean", pager.clean, .choices = cleans, .unit = "", .fallback = "\"hash\"",
	.meaning = "how the first write to a page that came back is learned of: hash, by "
		   "checksum when it leaves again, or wp, by a write-protection fault"),
    TOP(CONF_CHOICE, "policy", pager.policy, .choices = policies, .unit = "", .fallback = "\"2q\"",
	.meaning = "which pages leave: 2q, those that lately came in and were not asked for "
		   "again, so that scans and loops leave the rest alone, or clock, in turn"),
    TOP(CONF_CHOICE, "on_full", pager.on_full, .choices = on_fulls, .unit = "",
	.fallback = "\"overrun\"",
	.meaning = "when swap is full: overrun the limit, or kill the group"),
    TOP(CONF_UINT, "give_up_s", pager.give_up_s, .min = 1, .max = 86400, .unit = "seconds",
	.fallback = "10",
	.meaning = "how long a client whose daemon died waits for a new one before it is "
		   "ended"),
    TOP(CONF_UINT, "readahead_pages", pager.readahead_pages, .min = 1, .max = 512, .unit = "pages",
	.fallback = "512", .meaning = "largest readahead window"),
    TOP(CONF_UINT, "busy_poll_us", pager.busy_poll_us, .min = 0, .max = 1000000,
	.unit = "microseconds", .fallback = "60",
	.meaning = "how long a worker polls after activity before it sleeps; 0 = never"),
    TOP(CONF_UINT, "stuck_ms", pager.stuck_ms, .min = 10, .max = 600000, .unit = "milliseconds",
	.fallback = "1000",
	.meaning = "how long an agent may hold the gate before it is replaced by its spare"),
    TOP(CONF_UINT, "pretend_nodes", pager.pretend_nodes, .min = 0, .max = 64, .unit = "nodes",
	.fallback = "0", .testing = true,
	.meaning = "for tests: memory nodes that the daemon shall believe in; 0 = those there "
		   "are"),
    TOP(CONF_SIZE, "image_memory", pager.image_memory, .min = 1 << 20, .max = INT64_MAX,
	.unit = "bytes", .fallback = "\"1G\"",
	.meaning = "what the pages of files that programs map through upager_map_file(3) may hold "
		   "in memory, all together"),
    TOP(CONF_UINT, "writeback_s", pager.writeback_s, .min = 1, .max = 86400, .unit = "seconds",
	.fallback = "5",
	.meaning = "after how long what was written to a shared mapping of a file goes to the "
		   "file, if nobody asks for it sooner"),
    TOP(CONF_UINT, "image_delay_us", pager.image_delay_us, .min = 0, .max = 10000000,
	.unit = "microseconds", .fallback = "0", .testing = true,
	.meaning = "for tests: every read of a file ends so much later"),
    TOP(CONF_UINT, "image_error_every", pager.image_error_every, .min = 0, .max = 1000000000,
	.unit = "", .fallback = "0", .testing = true,
	.meaning = "for tests: every n-th read of a file fails with EIO; 0 = none"),
    TOP(CONF_OBJECT, "compressed", pager.compressed, .max = CONF_COMPRESSED, .unit = "",
	.fallback = "{}",
	.meaning = "memory that evicted pages are compressed into, before they go to swap"),
    COMPRESSED(SIZE, size, .min = 1 << 20, .max = 64ll << 30, .unit = "bytes", .fallback = "0",
	       .meaning = "how much memory it may take, 1M to 64G, besides the limits of groups; "
			  "the oldest pages go to swap as it fills up; 0 = none"),
    COMPRESSED(CHOICE, algorithm, .choices = algorithms, .unit = "", .fallback = "\"lz4\"",
	       .meaning = "lz4, or zstd: smaller and slower"),
    COMPRESSED(INT, level, .min = -65536, .max = 22, .unit = "", .fallback = "0",
	       .meaning = "0 = the algorithm's own choice; below 0 faster; above, smaller (zstd "
			  "alone)"),
    TOP(CONF_LIST, "swap", swap, .max = CONF_SWAPS, .unit = "",
	.fallback = "[{\"path\": \"/var/lib/upager/swap\", \"size\": \"8G\"}]",
	.meaning = "swap files and block devices, at most 32; none, if pages are to rest in "
		   "compressed memory alone"),
    SWAP(PATH, path, .unit = "", .fallback = NULL,
	 .meaning = "a file, or a block device, whose content is overwritten"),
    SWAP(SIZE, size, .min = 0, .max = INT64_MAX, .unit = "bytes", .fallback = "0",
	 .meaning = "at least 1M, a multiple of 4096; 0 = the device's or existing file's "
		    "own size"),
    SWAP(INT, priority, .min = -32768, .max = 32767, .unit = "", .fallback = "0",
	 .meaning = "higher is filled first, equals are taken in turn"),
    SWAP(BOOL, preallocate, .unit = "", .fallback = "false",
	 .meaning = "reserve the file's blocks at start, so that a full file system cannot "
		    "stop eviction later"),
    SWAP(BOOL, direct, .unit = "", .fallback = "true",
	 .meaning = "go round the page cache (O_DIRECT)"),
    SWAP(BOOL, create, .unit = "", .fallback = "true",
	 .meaning = "make the file (mode 0600) if it is missing, and remove it at the end"),
    SWAP(UINT, error_every, .min = 0, .max = 1000000000, .unit = "", .fallback = "0",
	 .testing = true, .meaning = "for tests: every n-th I/O fails with EIO; 0 = none"),
    SWAP(UINT, delay_us, .min = 0, .max = 60000000, .unit = "microseconds", .fallback = "0",
	 .testing = true, .meaning = "for tests: every I/O completes so much later"),
    TOP(CONF_OBJECT, "features", pager.features, .max = CONF_FEATURES, .unit = "",
	.fallback = "{}",
	.meaning = "kernel features that may be used where the kernel has them; false is for "
		   "tests"),
    FEATURE("move", PAGER_FEATURE_MOVE,
	    "UFFDIO_MOVE (Linux 6.8); without it nothing is evicted"),
    FEATURE("wp_unpopulated", PAGER_FEATURE_WP_UNPOPULATED,
	    "markers on evicted pages, UFFD_FEATURE_WP_UNPOPULATED (Linux 6.4); without "
	    "them nothing is evicted"),
    FEATURE("poison", PAGER_FEATURE_POISON, "UFFDIO_POISON (Linux 6.6)"),
    FEATURE("procmap_query", PAGER_FEATURE_PROCMAP_QUERY,
	    "PROCMAP_QUERY (Linux 6.11); else the text of /proc/PID/maps"),
};

const size_t conf_n_keys = sizeof(conf_keys) / sizeof(*conf_keys);
