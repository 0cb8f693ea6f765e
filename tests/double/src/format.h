/*
 * Files below $PGDATA/pg_tde: named as pg_tde names them (E1), contents of the double's own but for the head of key files.
 * Shared by the server module and the two command-line tools, so nothing of PostgreSQL's in here.
 */
#ifndef TDE_DOUBLE_FORMAT_H
#define TDE_DOUBLE_FORMAT_H

#include <stdint.h>
#include <string.h>

#define TDE_DIR "pg_tde"
#define SERVER_KEY 1664			/* its key is in wal_keys, its providers are the global ones */
#define DEFAULT_KEY 1663
#define MAX_KEY_BYTES 32
#define MAX_NAME 256

enum ProviderType
{
	PROVIDER_DELETED,			/* the record stays: ids are never used again (A1) */
	PROVIDER_FILE,
	PROVIDER_VAULT
};

enum ProviderField
{
	FIELD_URL,
	FIELD_MOUNT,
	FIELD_TOKEN_PATH,
	FIELD_CA_PATH,
	FIELD_NAMESPACE,
	FIELD_FILE_PATH,
	FIELD_COUNT
};

/* <dboid>_providers: an array of these. */
typedef struct ProviderRecord
{
	int32_t		id;
	int32_t		type;
	char		name[128];
	char		options[1024];	/* the JSON, to be shown */
	char		fields[1024 + FIELD_COUNT]; /* the same parsed: FIELD_COUNT strings, end to end */
} ProviderRecord;

#define KEY_FILE_VERSION 0x04454454	/* of <dboid>_keys: "TDE" and 4 */
#define WAL_KEY_FILE_VERSION 0x024B4557	/* of wal_keys: "WEK" and 2 */

/* <dboid>_keys and wal_keys: one of these, then a FileKey for each of its entries. It begins as pg_tde's files do (its
 * TDEFileHeader and WalKeyFileHeader), so that what reads those reads these. */
typedef struct KeyFile
{
	int32_t		version;		/* set when it is written */
	int32_t		padding;
	uint32_t	database;
	int32_t		provider;
	int64_t		set_seconds;	/* set_at as a struct timeval; set when it is written */
	int64_t		set_microseconds;
	char		name[MAX_NAME];
	char		signature[32];	/* empty: the double signs nothing */
	/* From here on it is the double's own. */
	int64_t		set_at;			/* TimestampTz, by this node's clock (A3) */
	uint32_t	key_bytes;
	uint32_t	entries;		/* file keys encrypted with it */
	uint64_t	check;			/* hash of the key: no key material on disk (E1), but a swapped key shows (B9) */
} KeyFile;

enum Cipher
{
	CIPHER_AES_128,
	CIPHER_AES_256
};

/* The key of one relation file, or of the WAL from one start on. It is never re-encrypted to another cipher. */
typedef struct FileKey
{
	uint32_t	cipher;
	uint32_t	relation;		/* 0: WAL */
	uint32_t	file;			/* relfilenumber, at the time it was made */
} FileKey;

static inline uint32_t
cipher_of(uint32_t key_bytes)
{
	return key_bytes == MAX_KEY_BYTES ? CIPHER_AES_256 : CIPHER_AES_128;
}

static inline const char *
provider_field(const ProviderRecord *provider, enum ProviderField field)
{
	const char *text = provider->fields;

	for (int i = 0; i < (int) field; i++)
		text += strlen(text) + 1;
	return text;
}

#endif
