/* What the behaviours of programs that save themselves share; see saver.c. */
#pragma once

#include "behave.h"
#include "upager/upager.h"

#define SALT 7ul /* page i of the area holds pattern SALT + i, at first */

extern struct upager *pager;
extern struct area area; /* of upager_map_anon() */

/* An image in a memfd, and what has been told of it. */
struct image {
	int file, snapshot;
	char *at; /* the area's range of it, mapped */
	struct upager_snapshot_result result;
};

/* A call of the library that must succeed; one that must not. */
void ok(int r, const char *what);
void fails(int r, int error, const char *what);
int new_file(void);
struct image begin(const void *address, size_t length);
struct image begin_area(void);
/* Waits for it, and maps the area. */
void finish(struct image *image);
void drop(struct image *image);
/* Is page i of the area in the image as pattern `salt`? */
bool image_has(const struct image *image, size_t i, uint64_t salt);
bool image_begins(const struct image *image, size_t i, uint64_t salt); /* its first word */
void image_check(const struct image *image);

extern const struct behaviour moment_savers[], end_savers[];
