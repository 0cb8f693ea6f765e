/*
 * pg_tde_change_key_provider -D DATADIR 1664 NAME vault-v2 URL MOUNT TOKEN_PATH [CA_PATH]
 *
 * Rewrites a provider's record in the files of a stopped server. Like pg_tde's, it asks nobody whether the new one works (D1).
 */
#include "postgres_fe.h"

#include <unistd.h>

#include "catalog/pg_control.h"

/* libc's own, so that libpgport isn't needed */
#undef snprintf
#undef fprintf
#undef printf
#undef strerror

#include "format.h"

static const char *const program = "pg_tde_change_key_provider";

static void
fail(const char *text)
{
	fprintf(stderr, "%s: error: %s\n", program, text);
	exit(1);
}

static void
require_stopped(const char *data_directory)
{
	char		path[MAXPGPATH];
	ControlFileData control;
	FILE	   *file;

	snprintf(path, sizeof(path), "%s/global/pg_control", data_directory);
	file = fopen(path, "rb");
	if (!file || fread(&control, sizeof(control), 1, file) != 1)
	{
		fprintf(stderr, "%s: error: could not open file \"%s\" for reading: %s\n", program, path, strerror(errno));
		exit(1);
	}
	fclose(file);
	if (control.state != DB_SHUTDOWNED && control.state != DB_SHUTDOWNED_IN_RECOVERY)
		fail("cluster must be shut down");
}

static void
set_options(ProviderRecord *record, char **values, int count)
{
	static const char *const names[] = {"url", "mountPath", "tokenPath", "caPath"};
	char	   *options = record->options;
	char	   *field = record->fields;
	const char *end = record->options + sizeof(record->options);

	memset(record->options, 0, sizeof(record->options));
	memset(record->fields, 0, sizeof(record->fields));
	record->type = PROVIDER_VAULT;
	for (int i = 0; i < 4; i++)
	{
		const char *value = i < count ? values[i] : "";

		/* Compact, "caPath":"" where none is given, and nothing escaped: as pg_tde's tool does it (A1). */
		options += snprintf(options, end - options, "%s\"%s\":\"%s\"", i ? "," : "{", names[i], value);
		if (options + 1 >= end)
			fail("configuration too long");
		strcpy(field, value);
		field += strlen(value) + 1;
	}
	strcpy(options, "}");
}

int
main(int argc, char **argv)
{
	const char *data_directory = getenv("PGDATA");
	char		path[MAXPGPATH];
	ProviderRecord record;
	FILE	   *file;
	int			option;

	if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
	{
		puts("pg_tde_change_key_provider (PostgreSQL) " PG_VERSION ", contract double of pg_tde");
		return 0;
	}
	while ((option = getopt(argc, argv, "D:")) != -1)
	{
		if (option != 'D')
			return 1;
		data_directory = optarg;
	}
	if (!data_directory)
		fail("no data directory specified");
	argv += optind;
	argc -= optind;
	if (argc < 3)
		fail("too few arguments");
	if (strcmp(argv[2], "vault-v2") != 0)
		fail("the contract double changes providers to vault-v2 only");
	if (argc != 6 && argc != 7)
		fail("wrong number of arguments for \"vault-v2\"");
	require_stopped(data_directory);

	snprintf(path, sizeof(path), "%s/%s/%s_providers", data_directory, TDE_DIR, argv[0]);
	file = fopen(path, "r+b");
	while (file && fread(&record, sizeof(record), 1, file) == 1)
	{
		if (record.type == PROVIDER_DELETED || strcmp(record.name, argv[1]) != 0)
			continue;
		set_options(&record, argv + 3, argc - 3);
		if (fseek(file, -(long) sizeof(record), SEEK_CUR) != 0 || fwrite(&record, sizeof(record), 1, file) != 1 ||
			fclose(file) != 0)
			fail("could not write the provider");
		puts("Key provider updated successfully!");
		return 0;
	}
	fprintf(stderr, "%s: error: provder \"%s\" not found for database %s\n", program, argv[1], argv[0]);	/* (sic) */
	return 1;
}
