/*
 * libcurl without its headers: the few prototypes and numbers below are part of its stable ABI, and a machine without the
 * -dev package can still build the double.
 */
#include "http.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum CurlOption
{
	OPT_TIMEOUT = 13,
	OPT_FOLLOWLOCATION = 52,
	OPT_CONNECTTIMEOUT = 78,
	OPT_HTTP_VERSION = 84,
	OPT_NOSIGNAL = 99,
	OPT_WRITEDATA = 10001,
	OPT_URL = 10002,
	OPT_POSTFIELDS = 10015,
	OPT_HTTPHEADER = 10023,
	OPT_CAINFO = 10065,
	OPT_WRITEFUNCTION = 20011
};

#define HTTP_VERSION_1_1 2L
#define INFO_RESPONSE_CODE 0x200002

static struct
{
	void	   *(*init) (void);
	int			(*setopt) (void *, int,...);
	int			(*perform) (void *);
	int			(*getinfo) (void *, int,...);
	void		(*cleanup) (void *);
	void	   *(*slist_append) (void *, const char *);
	void		(*slist_free) (void *);
}			curl;

static int
load_curl(void)
{
	static const char *const names[] = {"libcurl.so.4", "libcurl-gnutls.so.4", "libcurl-nss.so.4"};
	void	   *library = NULL;

	if (curl.init)
		return 1;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !library; i++)
		library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return 0;
	*(void **) &curl.setopt = dlsym(library, "curl_easy_setopt");
	*(void **) &curl.perform = dlsym(library, "curl_easy_perform");
	*(void **) &curl.getinfo = dlsym(library, "curl_easy_getinfo");
	*(void **) &curl.cleanup = dlsym(library, "curl_easy_cleanup");
	*(void **) &curl.slist_append = dlsym(library, "curl_slist_append");
	*(void **) &curl.slist_free = dlsym(library, "curl_slist_free_all");
	*(void **) &curl.init = dlsym(library, "curl_easy_init");
	return curl.init != NULL;
}

static size_t
collect(const char *data, size_t size, size_t count, void *target)
{
	HttpReply  *reply = target;
	char	   *grown = realloc(reply->body, reply->length + size * count + 1);

	if (!grown)
		return 0;
	memcpy(grown + reply->length, data, size * count);
	reply->body = grown;
	reply->length += size * count;
	reply->body[reply->length] = '\0';
	return size * count;
}

int
http_perform(const HttpRequest *request, HttpReply *reply)
{
	void	   *handle;
	void	   *headers;
	char		line[1200];
	int			failure;

	memset(reply, 0, sizeof(*reply));

	/* A handle for each request: one kept open would be shared by every backend forked from the postmaster. */
	if (!load_curl() || !(handle = curl.init()))
		return HTTP_NO_LIBCURL;
	reply->body = calloc(1, 1);

	snprintf(line, sizeof(line), "X-Vault-Token: %s", request->token);
	headers = curl.slist_append(NULL, line);
	headers = curl.slist_append(headers, "Content-Type: application/json");
	if (request->vault_namespace[0])
	{
		snprintf(line, sizeof(line), "X-Vault-Namespace: %s", request->vault_namespace);
		headers = curl.slist_append(headers, line);
	}
	curl.setopt(handle, OPT_URL, request->url);
	curl.setopt(handle, OPT_HTTPHEADER, headers);
	if (request->ca_path[0])
		curl.setopt(handle, OPT_CAINFO, request->ca_path);
	if (request->post)
		curl.setopt(handle, OPT_POSTFIELDS, request->post);
	curl.setopt(handle, OPT_FOLLOWLOCATION, 1L);
	curl.setopt(handle, OPT_CONNECTTIMEOUT, 3L);	/* C1 */
	curl.setopt(handle, OPT_TIMEOUT, 10L);	/* C1 */
	curl.setopt(handle, OPT_HTTP_VERSION, HTTP_VERSION_1_1);
	curl.setopt(handle, OPT_NOSIGNAL, 1L);	/* signals are the server's business */
	curl.setopt(handle, OPT_WRITEFUNCTION, collect);
	curl.setopt(handle, OPT_WRITEDATA, reply);

	failure = curl.perform(handle);
	if (!failure)
		curl.getinfo(handle, INFO_RESPONSE_CODE, &reply->status);
	else
	{
		free(reply->body);
		reply->body = NULL;
	}
	curl.slist_free(headers);
	curl.cleanup(handle);
	return failure;
}
