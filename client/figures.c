#include "figures.h"

#include <string.h>

#include "mm/counters.h"
#include "terminal.h"

static const struct meaning {
	const char *name, *text;
} meanings[] = {
#define X(name, text) {#name, text},
	COUNTERS(X)
#undef X
};

int64_t figure(const json_t *object, const char *name)
{
	return json_integer_value(json_object_get(object, name));
}

int64_t figure_counter(const json_t *object, const char *name)
{
	return figure(json_object_get(object, "counters"), name);
}

int64_t figure_faults(const json_t *object)
{
	static const char *const kinds[] = {"zero", "minor", "major", "parked", "wp_reuse"};
	int64_t sum = 0;

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		sum += figure_counter(object, kinds[i]);
	return sum;
}

static void row_count(struct table *table, const char *what, int64_t value, const char *meaning)
{
	char buffer[32];

	table_cell(table, "  %s", what);
	table_cell(table, "%s", count_format(value, buffer));
	table_cell(table, "%s", meaning);
}

static void row_size(struct table *table, const char *what, int64_t bytes, const char *meaning)
{
	table_cell(table, "  %s", what);
	table_size(table, bytes);
	table_cell(table, "%s", meaning);
}

void figures_print_run(const json_t *group, double seconds, FILE *stream)
{
	struct table table;
	char buffer[32];

	table_init(&table, 3, 1 << 1);
	row_size(&table, "limit", figure(group, "limit"), "");
	row_size(&table, "resident", figure(group, "resident"), "at the end");
	row_size(&table, "peak", figure(group, "peak"), "highest resident seen");
	row_count(&table, "zero faults", figure_counter(group, "zero"), "first touches");
	row_count(&table, "minor faults", figure_counter(group, "minor"), "without I/O");
	row_count(&table, "major faults", figure_counter(group, "major"), "read from swap");
	row_size(&table, "out", FIGURES_PAGE * figure_counter(group, "pages_out"),
		 "written to swap");
	row_size(&table, "in", FIGURES_PAGE * figure_counter(group, "pages_in"),
		 "read from swap");
	table_cell(&table, "  time");
	table_cell(&table, "%s", seconds_format(seconds, buffer));
	table_cell(&table, "%s", "");
	fprintf(stream, "upager: group %s\n",
		json_string_value(json_object_get(group, "name")));
	table_print(&table, stream, false);
	table_done(&table);
}

static void print_compressed(const json_t *tier, const json_t *compressed, FILE *stream)
{
	static const struct meaning sizes[] = {
		{"size", "what it may take"},
		{"used", "memory taken"},
		{"peak", "most that was taken"},
	};
	int64_t out = FIGURES_PAGE * figure(tier, "pages_out"), bytes = figure(compressed, "bytes_out");
	struct table table;

	fprintf(stream, "compressed memory\n");
	table_init(&table, 3, 1 << 1);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		row_size(&table, sizes[i].name,
			 figure(json_object_get(tier, sizes[i].name) ? tier : compressed,
				sizes[i].name),
			 sizes[i].text);
	row_size(&table, "holds", FIGURES_PAGE * figure(compressed, "pages"), "pages, as they were");
	row_size(&table, "out", out, "pages compressed");
	row_size(&table, "became", bytes, "their size then");
	if (bytes) {
		table_cell(&table, "  ratio");
		table_cell(&table, "%.2f", (double)out / (double)bytes);
		table_cell(&table, "%s", "");
	}
	row_size(&table, "in", FIGURES_PAGE * figure(tier, "pages_in"), "pages decompressed");
	row_size(&table, "written back", FIGURES_PAGE * figure(compressed, "written_back"),
		 "pages that went on to swap");
	row_size(&table, "rejected", FIGURES_PAGE * figure(compressed, "rejected"),
		 "pages that do not compress");
	table_print(&table, stream, false);
	table_done(&table);
}

void figures_print_compressed(const json_t *tiers, FILE *stream)
{
	const json_t *tier;
	size_t i;

	json_array_foreach(tiers, i, tier) {
		const json_t *compressed = json_object_get(tier, "compressed");

		if (json_is_object(compressed))
			print_compressed(tier, compressed, stream);
	}
}

static void rows_memory(struct table *table, const json_t *object)
{
	static const struct meaning sizes[] = {
		{"limit", "what resident is held to"},
		{"resident", "memory in use, with frames and staging"},
		{"peak", "highest resident seen"},
		{"evicted", "resting in tiers or on standby"},
		{"overhead", "frames and staging, part of resident"},
		{"metadata", "page words and tables in the daemon"},
		{"registered", "under the pager's eyes"},
	};

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
		if (json_object_get(object, sizes[i].name))
			row_size(table, sizes[i].name, figure(object, sizes[i].name),
				 sizes[i].text);
	if (json_is_integer(json_object_get(object, "regions")))
		row_count(table, "regions", figure(object, "regions"), "");
}

static const char *meaning_of(const char *counter)
{
	for (unsigned i = 0; i < sizeof(meanings) / sizeof(*meanings); i++)
		if (!strcmp(meanings[i].name, counter))
			return meanings[i].text;
	return "";
}

/* In the order in which they are defined, then what a newer daemon may know; zeros are left out. */
static void rows_counters(struct table *table, json_t *counters)
{
	const char *name;
	json_t *value;

	for (unsigned i = 0; i < sizeof(meanings) / sizeof(*meanings); i++)
		if (figure(counters, meanings[i].name))
			row_count(table, meanings[i].name, figure(counters, meanings[i].name),
				  meanings[i].text);
	json_object_foreach(counters, name, value)
		if (!*meaning_of(name) && json_integer_value(value))
			row_count(table, name, json_integer_value(value), "");
}

void figures_print_all(const json_t *object, FILE *stream)
{
	struct table table;

	table_init(&table, 3, 1 << 1);
	rows_memory(&table, object);
	rows_counters(&table, json_object_get(object, "counters"));
	table_print(&table, stream, false);
	table_done(&table);
}
