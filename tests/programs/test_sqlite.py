#!/usr/bin/env -S python3 -B
"""sqlite3: an in-memory database of about 150 MB, changed, indexed, and checked by sqlite itself."""

import os

import common

ROWS = 160_000
SCRIPT = """
.bail on
PRAGMA cache_size = -1000;
CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT, c TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
  INSERT INTO t SELECT i, (i * 7919) % 100003, printf('%08x', i * 2654435761 % 4294967296),
    substr(hex(printf('%d/%d/%d', i * i, i * 31, i * 17)) ||
           printf('%0700d', i * 104729), 1, 700) FROM n;
COMMIT;
SELECT count(*), sum(a), sum(length(c)) FROM t;
CREATE INDEX t_a ON t (a, b);
UPDATE t SET c = b || c WHERE id % 13 = 0;
DELETE FROM t WHERE id % 11 = 0;
INSERT INTO t SELECT id + 1000000, a + 1, b, c FROM t WHERE id % 17 = 0;
SELECT count(*), sum(a), sum(length(c)), min(b), max(b) FROM t;
SELECT a, count(*) FROM t GROUP BY a ORDER BY 2 DESC, 1 LIMIT 5;
SELECT id, substr(c, 1, 40) FROM t WHERE a BETWEEN 500 AND 520 ORDER BY a, id LIMIT 20;
PRAGMA integrity_check;
.sha3sum
"""


def prepare(folder, scale=1):
  common.need("sqlite3")
  with open(os.path.join(folder, "script.sql"), "w") as file:
    file.write(SCRIPT.replace("{rows}", str(int(ROWS * scale))))
  return ["sqlite3", ":memory:"]


if __name__ == "__main__":
  common.main(lambda tap: common.compare(tap, prepare, stdin="script.sql"))
