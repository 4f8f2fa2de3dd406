#include "terminal.h"

#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/size.h"

static char *format_clean(const char *format, va_list args)
{
	char *text;

	if (vasprintf(&text, format, args) < 0) {
		fputs("upager: out of memory\n", stderr);
		exit(EXIT_UPAGER);
	}
	for (char *c = text; *c; c++)
		if (((unsigned char)*c < ' ' && *c != '\n') || *c == 0x7f)
			*c = '?';
	return text;
}

static void say_args(const char *format, va_list args)
{
	char *text = format_clean(format, args);

	fprintf(stderr, "upager: %s\n", text);
	free(text);
}

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_args(format, args);
	va_end(args);
}

int say_failed(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_args(format, args);
	va_end(args);
	return EXIT_UPAGER;
}

int say_usage(const char *command, char **argv, int option)
{
	const char *word = argv[optind - 1];

	if (option == ':')
		return say_failed("%s: %s needs a value; see `upager %s --help`", command, word,
				  command);
	return say_failed("%s: unknown option %s; see `upager %s --help`", command, word, command);
}

static bool obeys(FILE *stream)
{
	const char *term = getenv("TERM");

	return isatty(fileno(stream)) && term && strcmp(term, "dumb");
}

bool terminal_colours(FILE *stream)
{
	const char *no_color = getenv("NO_COLOR");

	return obeys(stream) && !(no_color && *no_color);
}

void progress_show(const char *format, ...)
{
	va_list args;
	char *text;

	if (!obeys(stderr))
		return;
	va_start(args, format);
	text = format_clean(format, args);
	va_end(args);
	fprintf(stderr, "\r%s\033[K", text);
	fflush(stderr);
	free(text);
}

void progress_clear(void)
{
	progress_show("%s", "");
}

void table_init(struct table *table, unsigned columns, uint64_t right)
{
	*table = (struct table){.columns = columns, .right = right};
}

void table_done(struct table *table)
{
	for (size_t i = 0; i < table->cells; i++)
		free(table->cell[i]);
	free(table->cell);
	*table = (struct table){0};
}

void table_cell(struct table *table, const char *format, ...)
{
	va_list args;

	if (table->cells == table->capacity) {
		table->capacity = table->capacity ? 2 * table->capacity : 32;
		table->cell = reallocarray(table->cell, table->capacity, sizeof(*table->cell));
		if (!table->cell) {
			fputs("upager: out of memory\n", stderr);
			exit(EXIT_UPAGER);
		}
	}
	va_start(args, format);
	table->cell[table->cells++] = format_clean(format, args);
	va_end(args);
}

void table_size(struct table *table, int64_t bytes)
{
	char buffer[24];

	table_cell(table, "%s", size_format(bytes < 0 ? 0 : (uint64_t)bytes, buffer));
}

/* Columns on the screen: UTF-8 continuation bytes take none. */
static int width(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += (*text & 0xc0) != 0x80;
	return n;
}

static void print_row(const struct table *table, size_t row, const int *widths, FILE *stream)
{
	for (unsigned c = 0; c < table->columns; c++) {
		const char *text = table->cell[row * table->columns + c];
		int pad = widths[c] - width(text);

		if (table->right & 1ull << c)
			fprintf(stream, "%*s%s", pad, "", text);
		else
			fprintf(stream, "%s%*s", text, c + 1 < table->columns ? pad : 0, "");
		if (c + 1 < table->columns)
			fputs("  ", stream);
	}
}

void table_print(const struct table *table, FILE *stream, bool titled)
{
	bool colours = titled && terminal_colours(stream);
	int widths[64] = {0};

	assert(table->columns <= 64 && table->cells % table->columns == 0);
	for (size_t i = 0; i < table->cells; i++) {
		int w = width(table->cell[i]);

		if (w > widths[i % table->columns])
			widths[i % table->columns] = w;
	}
	for (size_t row = 0; row < table->cells / table->columns; row++) {
		bool bold = colours && row == 0;

		fputs(bold ? "\033[1m" : "", stream);
		print_row(table, row, widths, stream);
		fputs(bold ? "\033[0m\n" : "\n", stream);
	}
}

const char *count_format(int64_t count, char buffer[static 32])
{
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%" PRId64, count), out = 0;

	for (int i = 0; i < n; i++) {
		buffer[out++] = digits[i];
		if ((n - i - 1) % 3 == 0 && i + 1 < n && digits[i] != '-')
			buffer[out++] = ',';
	}
	buffer[out] = 0;
	return buffer;
}

const char *seconds_format(double seconds, char buffer[static 32])
{
	long whole = (long)seconds;

	if (seconds < 60)
		snprintf(buffer, 32, "%.*f s", seconds < 10 ? 2 : 1, seconds);
	else if (whole < 3600)
		snprintf(buffer, 32, "%ld min %ld s", whole / 60, whole % 60);
	else
		snprintf(buffer, 32, "%ld h %ld min", whole / 3600, whole / 60 % 60);
	return buffer;
}
