\echo Use "ALTER EXTENSION pg_tde UPDATE TO '2.2'" to load this file. \quit

-- As in pg_tde itself: this version changes nothing in SQL.
