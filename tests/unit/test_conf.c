#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf.h"
#include "failure.h"

static void refused(const char *text, const char *expected)
{
	struct failure failure = {""};
	struct conf conf;
	int r = conf_parse(text, strlen(text), &conf, &failure);

	cr_expect_eq(r, -EINVAL, "%s: %d", text, r);
	cr_expect_str_eq(failure.text, expected, "%s\n  gave: %s", text, failure.text);
}

Test(conf, defaults)
{
	struct failure failure;
	struct conf conf;

	cr_assert_eq(conf_parse("{}", 2, &conf, &failure), 0);
	cr_expect_str_eq(conf.socket, "/run/upager/upagerd.sock");
	cr_expect_not(conf.socket_given);
	cr_expect_not(conf.swap_given);
	cr_expect_eq(conf.pager.workers, 1);
	cr_expect_eq(conf.pager.reg, PAGER_REGISTER_LAZY);
	cr_expect_eq(conf.pager.policy, PAGER_POLICY_2Q);
	cr_expect_eq(conf.pager.features, PAGER_FEATURE_ALL);
	cr_expect_eq(conf.pager.n_swaps, 1);
	cr_expect_eq(conf.pager.swaps, conf.swap);
	cr_expect_str_eq(conf.swap[0].path, "/var/lib/upager/swap");
	cr_expect_eq(conf.swap[0].size, UINT64_C(8) << 30);
	cr_expect(conf.swap[0].direct && conf.swap[0].create && !conf.swap[0].preallocate);
	conf_done(&conf);
}

Test(conf, everything)
{
	static const char text[] =
	    "{\"socket\": \"/a\", \"runtime_dir\": \"/b\", \"workers\": 64, \"register\": "
	    "\"eager\", \"clean\": \"wp\", \"policy\": \"clock\", \"on_full\": \"kill\", "
	    "\"give_up_s\": 1, "
	    "\"readahead_pages\": 512, \"busy_poll_us\": 0, \"stuck_ms\": 10, \"swap\": "
	    "[{\"path\": \"/c\", \"size\": 1048576, \"priority\": -5, \"preallocate\": true, "
	    "\"direct\": false, \"create\": false, \"error_every\": 3, \"delay_us\": 4}, "
	    "{\"path\": \"/dev/d\"}], \"compressed\": {\"size\": \"64M\", \"algorithm\": "
	    "\"zstd\", \"level\": 3}, \"features\": {\"move\": false, \"poison\": false}}";
	struct failure failure;
	struct conf conf;

	cr_assert_eq(conf_parse(text, strlen(text), &conf, &failure), 0, "%s", failure.text);
	cr_expect_str_eq(conf.socket, "/a");
	cr_expect_str_eq(conf.runtime_dir, "/b");
	cr_expect(conf.socket_given && conf.runtime_dir_given && conf.swap_given);
	cr_expect_eq(conf.pager.workers, 64);
	cr_expect_eq(conf.pager.reg, PAGER_REGISTER_EAGER);
	cr_expect_eq(conf.pager.clean, PAGER_CLEAN_WP);
	cr_expect_eq(conf.pager.policy, PAGER_POLICY_CLOCK);
	cr_expect_eq(conf.pager.on_full, PAGER_ON_FULL_KILL);
	cr_expect_eq(conf.pager.give_up_s, 1);
	cr_expect_eq(conf.pager.readahead_pages, 512);
	cr_expect_eq(conf.pager.busy_poll_us, 0);
	cr_expect_eq(conf.pager.stuck_ms, 10);
	cr_expect_eq(conf.pager.features,
		     PAGER_FEATURE_ALL & ~(PAGER_FEATURE_MOVE | PAGER_FEATURE_POISON));
	cr_assert_eq(conf.pager.n_swaps, 2);
	cr_expect_eq(conf.swap[0].size, 1 << 20);
	cr_expect_eq(conf.swap[0].priority, -5);
	cr_expect(conf.swap[0].preallocate && !conf.swap[0].direct && !conf.swap[0].create);
	cr_expect_eq(conf.swap[0].error_every, 3);
	cr_expect_eq(conf.swap[0].delay_us, 4);
	cr_expect_str_eq(conf.swap[1].path, "/dev/d");
	cr_expect_eq(conf.swap[1].size, 0);
	cr_expect_eq(conf.pager.compressed.size, 64 << 20);
	cr_expect_eq(conf.pager.compressed.algorithm, PAGER_ZSTD);
	cr_expect_eq(conf.pager.compressed.level, 3);
	conf_done(&conf);
}

Test(conf, wrong_types)
{
	refused("[]", "the file: expected an object, got []");
	refused("{\"socket\": 1}", "socket: expected an absolute path, got 1");
	refused("{\"socket\": \"here\"}", "socket: expected an absolute path, got \"here\"");
	refused("{\"workers\": \"2\"}", "workers: expected a whole number from 1 to 64, got \"2\"");
	refused("{\"workers\": 1.5}", "workers: expected a whole number from 1 to 64, got 1.5");
	refused("{\"register\": true}", "register: expected \"lazy\" or \"eager\", got true");
	refused("{\"policy\": \"lru\"}", "policy: expected \"2q\" or \"clock\", got \"lru\"");
	refused("{\"clean\": \"soap\"}", "clean: expected \"hash\" or \"wp\", got \"soap\"");
	refused("{\"on_full\": null}", "on_full: expected \"overrun\" or \"kill\", got null");
	refused("{\"swap\": {}}", "swap: expected a list of at most 32 objects, got {}");
	refused("{\"swap\": [1]}", "swap[0]: expected an object, got 1");
	refused("{\"swap\": [{\"path\": \"/a\", \"size\": true}]}",
		"swap[0].size: expected a size such as \"8G\", got true");
	refused("{\"swap\": [{\"path\": \"/a\"}, {\"path\": \"/b\", \"size\": \"8 G\"}]}",
		"swap[1].size: expected a size such as \"8G\", got \"8 G\"");
	refused("{\"swap\": [{\"path\": \"/a\", \"size\": -4096}]}",
		"swap[0].size: expected a size such as \"8G\", got -4096");
	refused("{\"swap\": [{\"path\": \"/a\", \"size\": 5000}]}",
		"swap[0].size: expected a multiple of 4096 bytes, got 5000");
	refused("{\"swap\": [{\"path\": \"/a\", \"direct\": 1}]}",
		"swap[0].direct: expected true or false, got 1");
	refused("{\"compressed\": 7}", "compressed: expected an object, got 7");
	refused("{\"compressed\": {\"size\": \"512K\"}}",
		"compressed.size: expected a size from 1 MiB to 64 GiB, got \"512K\"");
	refused("{\"compressed\": {\"size\": \"65G\"}}",
		"compressed.size: expected a size from 1 MiB to 64 GiB, got \"65G\"");
	refused("{\"compressed\": {\"algorithm\": \"zip\"}}",
		"compressed.algorithm: expected \"lz4\" or \"zstd\", got \"zip\"");
	refused("{\"compressed\": {\"level\": 1}}",
		"compressed.level: lz4 has none above 0, got 1");
	refused("{\"features\": []}", "features: expected an object, got []");
	refused("{\"features\": {\"move\": \"no\"}}",
		"features.move: expected true or false, got \"no\"");
}

Test(conf, out_of_range)
{
	refused("{\"workers\": 0}", "workers: expected a whole number from 1 to 64, got 0");
	refused("{\"workers\": 65}", "workers: expected a whole number from 1 to 64, got 65");
	refused("{\"stuck_ms\": 9}", "stuck_ms: expected a whole number from 10 to 600000, got 9");
	refused("{\"swap\": [{\"path\": \"/a\", \"priority\": 32768}]}",
		"swap[0].priority: expected a whole number from -32768 to 32767, got 32768");
}

Test(conf, unknown_and_missing)
{
	refused("{\"wokers\": 1}", "wokers: unknown key (upagerd --help-config lists them)");
	refused("{\"swap\": [{\"path\": \"/a\", \"sise\": 1}]}",
		"swap[0].sise: unknown key (upagerd --help-config lists them)");
	refused("{\"features\": {\"wings\": true}}",
		"features.wings: unknown key (upagerd --help-config lists them)");
	refused("{\"swap\": [{}]}", "swap[0].path: missing; it has no default");
}

Test(conf, long_values_are_cut)
{
	struct failure failure;
	struct conf conf;
	char text[400];

	snprintf(text, sizeof(text), "{\"clean\": \"%0300d\"}", 0);
	cr_expect_eq(conf_parse(text, strlen(text), &conf, &failure), -EINVAL);
	cr_expect_lt(strlen(failure.text), 100);
	cr_expect(strstr(failure.text, "..."));
}

Test(conf, too_many_swaps)
{
	struct failure failure;
	struct conf conf;
	char text[2048] = "{\"swap\": [";

	for (int i = 0; i < CONF_SWAPS + 1; i++)
		sprintf(text + strlen(text), "%s{\"path\": \"/%d\"}", i ? ", " : "", i);
	strcat(text, "]}");
	cr_expect_eq(conf_parse(text, strlen(text), &conf, &failure), -EINVAL);
}

Test(conf, syntax)
{
	refused("{\n  \"workers\": 1,\n  \"clean\" \"wp\"\n}", "3:14: ':' expected near '\"wp\"'");
	refused("{\"workers\": 1, \"workers\": 2}",
		"1:24: duplicate object key near '\"workers\"'");
	refused("", "1:0: '[' or '{' expected near end of file");
}

Test(conf, files)
{
	char path[] = "/tmp/conf-XXXXXX", expected[128];
	int fd = mkstemp(path);
	struct failure failure;
	struct conf conf;

	cr_assert_geq(fd, 0);
	cr_expect_eq(dprintf(fd, "{\n\"workers\" 1}"), 14);
	cr_expect_eq(conf_load(path, &conf, &failure), -EINVAL);
	snprintf(expected, sizeof(expected), "%s:2:11: ':' expected near '1'", path);
	cr_expect_str_eq(failure.text, expected);
	unlink(path);
	cr_expect_eq(conf_load(path, &conf, &failure), -ENOENT);
	snprintf(expected, sizeof(expected), "%s: No such file or directory", path);
	cr_expect_str_eq(failure.text, expected);
	cr_expect_eq(conf_load("/", &conf, &failure), -EISDIR);
	cr_expect_eq(conf_load("/dev/zero", &conf, &failure), -EFBIG);
	cr_assert_eq(conf_load(NULL, &conf, &failure), 0);
	conf_done(&conf);
}

static char *read_whole(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text = calloc(1, 1 << 16);

	cr_assert(file, "%s", path);
	cr_assert_gt(fread(text, 1, (1 << 16) - 1, file), 0);
	fclose(file);
	return text;
}

/* Every key stands in the manual page with its range and default, and in the example file. */
Test(conf, documentation)
{
	char *man = read_whole(MAN_PAGE), *example = read_whole(EXAMPLE), path[64], line[128];

	for (size_t i = 0; i < conf_n_keys; i++) {
		const struct conf_key *key = &conf_keys[i];

		conf_key_path(key, path, sizeof(path));
		snprintf(line, sizeof(line), ".It Cm %s ", path);
		cr_expect(strstr(man, line), "%s is not in the manual page", path);
		snprintf(line, sizeof(line), "\"%s\"", key->name);
		cr_expect(key->testing || strstr(example, line), "%s is not in the example",
			  key->name);
		if (key->type == CONF_UINT || key->type == CONF_INT) {
			snprintf(line, sizeof(line), ".It Cm %s Pq %lld to %lld%s%s, default %s\n",
				 path, (long long)key->min, (long long)key->max,
				 *key->unit ? " " : "", key->unit, key->fallback);
			cr_expect(strstr(man, line), "the manual page lacks: %s", line);
		}
	}
	free(man);
	free(example);
}

/* The example says what the defaults are. */
Test(conf, example_is_the_default)
{
	struct failure failure;
	struct conf example, plain;

	cr_assert_eq(conf_load(EXAMPLE, &example, &failure), 0, "%s", failure.text);
	cr_assert_eq(conf_load(NULL, &plain, &failure), 0);
	cr_expect_str_eq(example.socket, plain.socket);
	cr_expect_str_eq(example.runtime_dir, plain.runtime_dir);
	cr_expect_str_eq(example.swap[0].path, plain.swap[0].path);
	example.swap[0].path = plain.swap[0].path;
	example.pager.swaps = plain.pager.swaps;
	cr_expect_eq(memcmp(&example.pager, &plain.pager, sizeof(plain.pager)), 0);
	cr_expect_eq(memcmp(example.swap, plain.swap, sizeof(plain.swap)), 0);
	conf_done(&example);
	conf_done(&plain);
}
