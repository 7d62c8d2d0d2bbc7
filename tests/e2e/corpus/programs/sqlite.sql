SELECT count(*), sum(id), max(name) FROM person;
SELECT p.name, count(*) FROM person p JOIN visit v ON v.person = p.id GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5;
PRAGMA integrity_check;
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 1000) SELECT sum(x) FROM n;
SELECT length(readfile('/data/big'));
.tables
.schema person
