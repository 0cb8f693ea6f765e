/* One HTTP request by libcurl, which is loaded when first needed. No PostgreSQL in here: the tools use it too. */
#ifndef TDE_DOUBLE_HTTP_H
#define TDE_DOUBLE_HTTP_H

#include <stddef.h>

typedef struct HttpRequest
{
	const char *url;
	const char *token;
	const char *ca_path;		/* "" = the system's */
	const char *vault_namespace;	/* "" = none */
	const char *post;			/* NULL = GET */
} HttpRequest;

typedef struct HttpReply
{
	long		status;
	char	   *body;			/* malloc'ed, to be freed by the caller; NULL on failure */
	size_t		length;
} HttpReply;

#define HTTP_NO_LIBCURL (-1)

/* 0, or libcurl's error code, or HTTP_NO_LIBCURL. */
extern int	http_perform(const HttpRequest *request, HttpReply *reply);

#endif
