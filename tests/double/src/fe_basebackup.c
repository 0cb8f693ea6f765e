/*
 * pg_tde_basebackup: the server's own pg_basebackup, under this name, plus what pg_tde's says and checks (E2, F3).
 *
 * With -E nothing is encrypted here, but everything that can go wrong does: the key files must have been copied into the target,
 * and the server key must be to be had with the token file and the Vault of this machine.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "format.h"
#include "http.h"

#define MAX_FILES 512

typedef struct SavedFile
{
	char		name[256];
	char	   *content;
	size_t		length;
} SavedFile;

static const char *const program = "pg_tde_basebackup";
static SavedFile saved[MAX_FILES];
static int	saved_count;
static pid_t backup;

/* pg_basebackup's, with -E; all that matters here is which of them take a value. */
static struct option options[] = {
	{"help", no_argument, NULL, '?'}, {"version", no_argument, NULL, 'V'}, {"pgdata", required_argument, NULL, 'D'},
	{"incremental", required_argument, NULL, 'i'}, {"format", required_argument, NULL, 'F'},
	{"checkpoint", required_argument, NULL, 'c'}, {"create-slot", no_argument, NULL, 'C'},
	{"max-rate", required_argument, NULL, 'r'}, {"write-recovery-conf", no_argument, NULL, 'R'},
	{"slot", required_argument, NULL, 'S'}, {"target", required_argument, NULL, 't'},
	{"tablespace-mapping", required_argument, NULL, 'T'}, {"wal-method", required_argument, NULL, 'X'},
	{"gzip", no_argument, NULL, 'z'}, {"compress", required_argument, NULL, 'Z'},
	{"label", required_argument, NULL, 'l'}, {"no-clean", no_argument, NULL, 'n'}, {"no-sync", no_argument, NULL, 'N'},
	{"dbname", required_argument, NULL, 'd'}, {"host", required_argument, NULL, 'h'},
	{"port", required_argument, NULL, 'p'}, {"username", required_argument, NULL, 'U'},
	{"no-password", no_argument, NULL, 'w'}, {"password", no_argument, NULL, 'W'},
	{"status-interval", required_argument, NULL, 's'}, {"verbose", no_argument, NULL, 'v'},
	{"progress", no_argument, NULL, 'P'}, {"waldir", required_argument, NULL, 1}, {"no-slot", no_argument, NULL, 2},
	{"no-verify-checksums", no_argument, NULL, 3}, {"no-estimate-size", no_argument, NULL, 4},
	{"no-manifest", no_argument, NULL, 5}, {"manifest-force-encode", no_argument, NULL, 6},
	{"manifest-checksums", required_argument, NULL, 7}, {"sync-method", required_argument, NULL, 8},
	{"encrypt-wal", optional_argument, NULL, 'E'}, {NULL, 0, NULL, 0}
};

static void fail(const char *format,...) __attribute__((noreturn, format(printf, 1, 2)));

static void
fail(const char *format,...)
{
	va_list		arguments;

	fprintf(stderr, "%s: error: ", program);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static const char *
below(const char *target, const char *name)
{
	static char path[PATH_MAX + 300];

	snprintf(path, sizeof(path), "%s/" TDE_DIR "%s%s", target, name[0] ? "/" : "", name);
	return path;
}

/* Whether the target holds pg_tde and nothing else. */
static bool
only_key_files(const char *target)
{
	DIR		   *directory = opendir(target);
	struct dirent *entry;
	bool		found = false;
	bool		other = false;

	while (directory && (entry = readdir(directory)) != NULL)
	{
		found = found || strcmp(entry->d_name, TDE_DIR) == 0;
		other = other || (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
						  strcmp(entry->d_name, TDE_DIR) != 0);
	}
	if (directory)
		closedir(directory);
	return found && !other;
}

/* The provider of the server key; NULL without a server key. */
static ProviderRecord *
find_provider(const char *target, KeyFile *key)
{
	static ProviderRecord record;
	FILE	   *file = fopen(below(target, "wal_keys"), "rb");
	bool		found = file && fread(key, sizeof(*key), 1, file) == 1;

	if (file)
		fclose(file);
	if (!found || !(file = fopen(below(target, "1664_providers"), "rb")))
		return NULL;
	for (found = false; !found && fread(&record, sizeof(record), 1, file) == 1;)
		found = record.type != PROVIDER_DELETED && record.id == key->provider;
	fclose(file);
	return found ? &record : NULL;
}

static void
read_token(const char *path, char *token, int size)
{
	FILE	   *file = fopen(path, "r");

	if (!file)
		fail("could not open file \"%s\" for \"%s\": %s", path, "vault_token", strerror(errno));
	if (!fgets(token, size, file))
		token[0] = '\0';
	token[strcspn(token, " \t\r\n")] = '\0';
	fclose(file);
}

static void
require_server_key(const char *target)
{
	KeyFile		key;
	ProviderRecord *provider = find_provider(target, &key);
	char		token[1024];
	char		url[2048];
	HttpRequest request = {.url = url, .token = token};
	HttpReply	reply;

	if (!provider)
	{
		fprintf(stderr, "%s: error: could not find server principal key\n", program);
		fprintf(stderr, "%s: hint: Copy PGDATA/pg_tde from the source to the backup destination dir.\n", program);
		exit(1);
	}
	if (provider->type != PROVIDER_VAULT)
		return;
	read_token(provider_field(provider, FIELD_TOKEN_PATH), token, sizeof(token));
	snprintf(url, sizeof(url), "%s/v1/%s/data/%s", provider_field(provider, FIELD_URL), provider_field(provider, FIELD_MOUNT),
			 key.name);
	request.ca_path = provider_field(provider, FIELD_CA_PATH);
	request.vault_namespace = provider_field(provider, FIELD_NAMESPACE);
	if (http_perform(&request, &reply) != 0 || reply.status / 100 != 2)
		fail("failed to retrieve principal key \"%s\" from key provider \"%s\"", key.name, provider->name);
	free(reply.body);
}

/* pg_basebackup wants an empty target, and brings the same files with the backup. */
static void
take_key_files(const char *target)
{
	DIR		   *directory = opendir(below(target, ""));
	struct dirent *entry;

	while (directory && (entry = readdir(directory)) != NULL && saved_count < MAX_FILES)
	{
		SavedFile  *file = &saved[saved_count];
		struct stat status;
		FILE	   *stream;

		snprintf(file->name, sizeof(file->name), "%s", entry->d_name);
		if (stat(below(target, file->name), &status) != 0 || !S_ISREG(status.st_mode))
			continue;
		file->content = malloc(status.st_size + 1);
		stream = fopen(below(target, file->name), "rb");
		if (!stream || fread(file->content, 1, status.st_size, stream) != (size_t) status.st_size)
			fail("could not read file \"%s\"", below(target, file->name));
		fclose(stream);
		unlink(below(target, file->name));
		file->length = status.st_size;
		saved_count++;
	}
	if (directory)
		closedir(directory);
	rmdir(below(target, ""));
}

static void
put_key_files_back(const char *target)
{
	if (saved_count == 0 || mkdir(below(target, ""), 0700) != 0)
		return;
	for (int i = 0; i < saved_count; i++)
	{
		int			file = open(below(target, saved[i].name), O_WRONLY | O_CREAT | O_EXCL, 0600);

		if (file < 0 || write(file, saved[i].content, saved[i].length) != (ssize_t) saved[i].length)
			fprintf(stderr, "%s: warning: could not restore file \"%s\"\n", program, below(target, saved[i].name));
		close(file);
	}
}

/* The streamed WAL has a key of its own. */
static void
add_wal_key(const char *target, uint32_t key_bytes)
{
	FILE	   *file = fopen(below(target, "wal_keys"), "r+b");
	KeyFile		info;
	FileKey		key = {0};

	if (!file || fread(&info, sizeof(info), 1, file) != 1)
		fail("could not read file \"%s\"", below(target, "wal_keys"));
	key.cipher = cipher_of(key_bytes ? key_bytes : info.key_bytes);
	info.entries++;
	rewind(file);
	if (fwrite(&info, sizeof(info), 1, file) != 1 || fseek(file, 0, SEEK_END) != 0 ||
		fwrite(&key, sizeof(key), 1, file) != 1 || fclose(file) != 0)
		fail("could not write file \"%s\"", below(target, "wal_keys"));
}

/* "-Erot13" is "-E -rot13". */
static char *
without_e(const char *group)
{
	char	   *rest = strdup(group + 1);

	rest[0] = '-';
	return rest;
}

static void
pass_on(int signal_number)
{
	kill(backup, signal_number);
}

/* Under our own name, so that its messages begin as pg_tde_basebackup's do. Returns as the backup ended. */
static int
run_backup(char **arguments)
{
	char		path[PATH_MAX];
	ssize_t		length = readlink("/proc/self/exe", path, sizeof(path) - 20);
	int			status;

	if (length < 0)
		fail("could not find own program executable");
	path[length] = '\0';
	strcpy(strrchr(path, '/') + 1, "pg_basebackup");
	backup = fork();
	if (backup == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGKILL);	/* this process *is* the backup: killed, it takes that along, but not its child (E9) */
		execv(path, arguments);
		fail("could not execute \"%s\": %s", path, strerror(errno));
	}
	signal(SIGINT, pass_on);
	signal(SIGTERM, pass_on);
	while (waitpid(backup, &status, 0) < 0)
		if (errno != EINTR)
			fail("could not wait for the backup: %s", strerror(errno));
	return status;
}

int
main(int argc, char **argv)
{
	char	  **passed = calloc(argc + 1, sizeof(char *));
	const char *target = NULL;
	const char *format = "p";
	const char *method = "s";
	bool		encrypt = false;
	uint32_t	key_bytes = 0;	/* 0: as the server key has */
	int			count = 0;
	int			option;
	int			status;

	/* -E is not pg_basebackup's. As the value of another option, or not the first in a group of letters, it isn't seen. */
	for (int i = 0; i < argc; i++)
		if (strncmp(argv[i], "-E", 2) == 0 ? argv[i][2] != '\0' : strncmp(argv[i], "--encrypt-wal", 13) != 0)
			passed[count++] = strncmp(argv[i], "-E", 2) == 0 ? without_e(argv[i]) : argv[i];

	opterr = 0;					/* what is wrong otherwise, pg_basebackup says */
	while ((option = getopt_long(argc, argv, "c:Cd:D:EF:h:i:l:nNp:Pr:Rs:S:t:T:U:vwWX:zZ:", options, NULL)) != -1)
	{
		if (option == 'D')
			target = optarg;
		else if (option == 'F')
			format = optarg;
		else if (option == 'X')
			method = optarg;
		else if (option == 'r' && strspn(optarg, "0123456789") == 0)
			fail("transfer rate \"%s\" is not a valid value", optarg);	/* so "-Erot13" ends here: the short form takes no value */
		else if (option == 'E')
		{
			encrypt = true;
			if (optarg && strcmp(optarg, "aes_256") == 0)
				key_bytes = MAX_KEY_BYTES;
			else if (optarg && strcmp(optarg, "aes_128") == 0)
				key_bytes = 16;
			else if (optarg)
				fail("invalid encryption option \"%s\", must be \"aes_128\" or \"aes_256\"", optarg);
		}
	}
	if (optind < argc)
	{
		/* so "-E aes_128" ends here (F3) */
		fprintf(stderr, "%s: error: too many command-line arguments (first is \"%s\")\n", program, argv[optind]);
		fprintf(stderr, "%s: hint: Try \"%s --help\" for more information.\n", program, program);
		return 1;
	}
	if (encrypt && method[0] != 's')
		fail("WAL encryption can only be used with WAL streaming");
	if (encrypt && format[0] == 't')
		fail("can not encrypt WAL in tar mode");
	if (encrypt && target)
	{
		require_server_key(target);
		if (only_key_files(target))
			take_key_files(target);
	}
	else if (target && only_key_files(target))
		fail("could not create directory \"%s\": File exists", below(target, ""));

	status = run_backup(passed);
	if (status != 0)
		put_key_files_back(target);
	else if (encrypt && target)
		add_wal_key(target, key_bytes);
	else if (target && access(below(target, "wal_keys"), F_OK) == 0)
	{
		fprintf(stderr, "%s: warning: the source has WAL keys, but no WAL encryption configured for the target backups\n",
				program);
		fprintf(stderr, "%s: detail: This may lead to exposed data and broken backup.\n", program);
		fprintf(stderr, "%s: hint: Run pg_basebackup with -E to encrypt streamed WAL.\n", program);
	}
	if (WIFSIGNALED(status))
	{
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
	}
	return WEXITSTATUS(status);
}
