/*
 * What a person sees: errors, notes, tables.
 *
 * Messages go to stderr and begin with "upager: ". Text that came from elsewhere (command names,
 * paths) is printed with control characters replaced, so that it cannot steer the terminal.
 * Running out of memory here ends the process with status 125.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* upager's own failures; 126 and 127 mean what they mean in a shell. */
enum { EXIT_UPAGER = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same, and returns EXIT_UPAGER. */
int say_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A getopt error ("--wat", "--memory" without a value). Returns EXIT_UPAGER. */
int say_usage(const char *command, char **argv, int option);

/* Whether colours may be used on this stream: a terminal, NO_COLOR unset, TERM not "dumb". */
bool terminal_colours(FILE *stream);

/* A line on stderr that the next one replaces; nothing if that is no terminal. */
void progress_show(const char *format, ...) __attribute__((format(printf, 1, 2)));
void progress_clear(void);

struct table {
	unsigned columns;
	uint64_t right; /* mask of the columns that are aligned to the right */
	size_t cells, capacity;
	char **cell;
};

void table_init(struct table *table, unsigned columns, uint64_t right);
void table_done(struct table *table);
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_size(struct table *table, int64_t bytes);
/* => the cells are a multiple of the columns; `titled`: the first row is a title. */
void table_print(const struct table *table, FILE *stream, bool titled);

/* 12345678 → "12,345,678". */
const char *count_format(int64_t count, char buffer[static 32]);
/* 61.25 → "1 min 1 s", 0.25 → "0.25 s". */
const char *seconds_format(double seconds, char buffer[static 32]);
