/*
 * pg_tde_archive_decrypt NAME SOURCE COMMAND and pg_tde_restore_encrypt NAME TARGET COMMAND, one program under two names: run a command
 * with another file in the place of a WAL segment, in /dev/shm. WAL is not encrypted here, so the file is copied as it is; that the
 * real ones open the server key is not imitated.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME_LENGTH 24

static const char *progname;
static char directory[PATH_MAX];
static char file[PATH_MAX + 64];

static void
clean(void)
{
	if (file[0])
		unlink(file);
	if (directory[0])
		rmdir(directory);
}

static void
fail(const char *what, const char *of)
{
	fprintf(stderr, "%s: error: %s \"%s\": %s\n", progname, what, of, strerror(errno));
	exit(1);
}

static void
copy(const char *from, const char *to)
{
	static char buffer[1 << 16];
	FILE	   *in = fopen(from, "rb");
	FILE	   *out = in ? fopen(to, "wb") : NULL;
	size_t		length;

	if (!in || !out)
		fail("could not open file", in ? to : from);
	while ((length = fread(buffer, 1, sizeof(buffer), in)) > 0)
		if (fwrite(buffer, 1, length, out) != length)
			fail("could not write file", to);
	if (ferror(in) || fclose(out) != 0)
		fail("could not copy file", from);
	fclose(in);
}

/* %f, %p and %%, as PostgreSQL does it. */
static char *
replaced(const char *command, const char *name, const char *path)
{
	char	   *result = NULL;
	size_t		size = 0;
	FILE	   *out = open_memstream(&result, &size);

	for (; out && *command; command++)
	{
		if (*command != '%')
			fputc(*command, out);
		else if (*++command == 'f')
			fputs(name, out);
		else if (*command == 'p')
			fputs(path, out);
		else if (*command == '%')
			fputc('%', out);
		else
		{
			fprintf(stderr, "%s: error: unexpected placeholder \"%%%c\"\n", progname, *command);
			exit(1);
		}
	}
	if (!out || fclose(out) != 0)
		fail("could not hold command", command);
	return result;
}

static int
is_segment(const char *name)
{
	return strspn(name, "0123456789ABCDEF") == NAME_LENGTH && (!name[NAME_LENGTH] || !strcmp(name + NAME_LENGTH, ".partial"));
}

int
main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	int			archives;
	int			status;

	progname = slash ? slash + 1 : argv[0];
	archives = strcmp(progname, "pg_tde_archive_decrypt") == 0;
	if (argc == 2 && strcmp(argv[1], "--version") == 0)
	{
		printf("%s: contract double of pg_tde, for tests: it encrypts and decrypts nothing\n", progname);
		return 0;
	}
	if (argc != 4)
	{
		fprintf(stderr, "%s: error: wrong number of arguments, 3 expected\n", progname);
		return 1;
	}
	if (!is_segment(argv[1]))
		snprintf(file, sizeof(file), "%s", argv[2]);
	else
	{
		snprintf(directory, sizeof(directory), "/dev/shm/pg_tde_%sXXXXXX", archives ? "archive" : "restore");
		if (!mkdtemp(directory))
			fail("could not create temporary directory", directory);
		slash = strrchr(argv[2], '/');
		snprintf(file, sizeof(file), "%s/%s", directory, slash ? slash + 1 : argv[2]);
		atexit(clean);
		if (archives)
			copy(argv[2], file);
	}
	status = system(replaced(argv[3], argv[1], file));
	if (status != 0)
	{
		fprintf(stderr, "%s: error: command \"%s\" failed (%d)\n", progname, argv[3],
				WIFEXITED(status) ? WEXITSTATUS(status) : status);
		return 1;
	}
	if (directory[0] && !archives)
		copy(file, argv[2]);
	return 0;
}
