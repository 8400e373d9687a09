// A real OAuth 2.0 server (oidc-provider) and, under /v2, something that asks for its tokens.
//
//   node server.mjs PLACE PORT     PLACE is where install.sh has put it
//
// It knows a station with a secret (`station 7`) and a program that people sign in with (`viewer`).
// GET /withdraw makes all tokens so far worthless.

const [place, port] = process.argv.slice(2);
const { default: Provider } = await import(`${place}/node_modules/oidc-provider/lib/index.js`);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  scopes: ["openid", "infer"],
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
  },
  issueRefreshToken: (_, client) => client.grantTypeAllowed("refresh_token"),
  ttl: { ClientCredentials: 600, AccessToken: 600, DeviceCode: 120 },
  clients: [
    {
      client_id: "station 7",
      client_secret: "s3cr3t:with&and%",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
    },
    {
      client_id: "viewer",
      application_type: "native",
      token_endpoint_auth_method: "none",
      grant_types: ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
      redirect_uris: [],
      response_types: [],
    },
  ],
});

const issued = [];
for (const event of ["client_credentials.saved", "access_token.saved"]) {
  provider.on(event, (token) => issued.push(token));
}

provider.use(async (ctx, next) => {
  if (ctx.path === "/withdraw") {
    await Promise.all(issued.splice(0).map((token) => token.destroy()));
    ctx.body = "";
    return;
  }
  if (!ctx.path.startsWith("/v2")) {
    await next();
    return;
  }
  const text = ctx.get("authorization").replace(/^Bearer /, "");
  const token =
    text && ((await provider.ClientCredentials.find(text)) ?? (await provider.AccessToken.find(text)));
  if (!token || !token.isValid || !token.scope?.split(" ").includes("infer")) {
    ctx.status = 401;
    ctx.body = { error: "no token that holds" };
    return;
  }
  if (ctx.path.startsWith("/v2/models") || ctx.path.startsWith("/v2/repository")) {
    ctx.status = 404;
    ctx.body = { error: `no model for ${token.accountId}` };
    return;
  }
  // Who asks, as the token says.
  ctx.body = { name: token.clientId, version: token.accountId ?? "", extensions: [] };
});

provider.listen(Number(port), "127.0.0.1");
