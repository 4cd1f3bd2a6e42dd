-- Run once, by the postgres image, in a fresh volume. The application's role is no superuser: a superuser's query can
-- read files and start programs, whatever a read-only transaction says.
\getenv password POSTGRES_PASSWORD

-- One iteration: more make it costly to guess a password, and this one is 24 random bytes. They make it costly to
-- connect as well, which Dagster does for every query: 9 ms each, a hundred times a run.
set scram_iterations = 1;
create role moments login password :'password';
create database moments owner moments;

-- From here on the superuser comes in through the container's own socket alone.
alter role postgres password null;
