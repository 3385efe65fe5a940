/* The environment variables that varve looks at: those of AWS's own tools, and VARVE_IO_URING. */
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "store/s3_credentials.h"

const char *vv_environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != 0 ? value : NULL;
}

enum vv_rt_uring vv_environment_uring(void)
{
    const char *value = vv_environment("VARVE_IO_URING");
    if (value != NULL && strcmp(value, "off") == 0)
        return VV_RT_URING_NEVER;
    return value != NULL && strcmp(value, "on") == 0 ? VV_RT_URING_ALWAYS : VV_RT_URING_QUICKER;
}

void vv_environment_s3(const struct vv_options *options, struct vv_s3_sources *out_sources)
{
    const char *disabled = vv_environment("AWS_EC2_METADATA_DISABLED");
    memset(out_sources, 0, sizeof *out_sources);
    out_sources->env_access_key = vv_environment("AWS_ACCESS_KEY_ID");
    out_sources->env_secret = vv_environment("AWS_SECRET_ACCESS_KEY");
    out_sources->env_token = vv_environment("AWS_SESSION_TOKEN");
    out_sources->is_profile_given = options->s3.profile != NULL;
    out_sources->profile =
        options->s3.profile != NULL ? options->s3.profile : vv_environment("AWS_PROFILE");
    out_sources->credentials_file = vv_environment("AWS_SHARED_CREDENTIALS_FILE");
    out_sources->config_file = vv_environment("AWS_CONFIG_FILE");
    out_sources->web_identity_token_file = vv_environment("AWS_WEB_IDENTITY_TOKEN_FILE");
    out_sources->role_arn = vv_environment("AWS_ROLE_ARN");
    out_sources->role_session_name = vv_environment("AWS_ROLE_SESSION_NAME");
    out_sources->sts_endpoint = vv_environment("AWS_ENDPOINT_URL_STS");
    out_sources->container_full_uri = vv_environment("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    out_sources->container_relative_uri = vv_environment("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    out_sources->container_token = vv_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    out_sources->container_token_file = vv_environment("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    out_sources->metadata_endpoint = vv_environment("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    out_sources->is_metadata_disabled = disabled != NULL && strcasecmp(disabled, "true") == 0;
    out_sources->ca_file =
        options->s3.ca_file != NULL ? options->s3.ca_file : vv_environment("AWS_CA_BUNDLE");
}
