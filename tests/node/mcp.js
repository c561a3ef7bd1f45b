// An MCP client whose client id an operator registered: it knows the MCP server's URL and its own credentials, and finds
// the authority by them.

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { clientId, clientSecret, hear, issuer, redirectUri, resource, say } from './settings.js'

const state = crypto.randomUUID()
let saved, verifier

const authProvider = {
  redirectUrl: redirectUri,
  clientMetadata: { client_name: 'Integration', redirect_uris: [redirectUri] },
  clientInformation: () => ({ client_id: clientId, client_secret: clientSecret }),
  state: () => state,
  redirectToAuthorization: (url) => say({ authorization_url: url.href }),
  saveCodeVerifier: (value) => (verifier = value),
  codeVerifier: () => verifier,
  saveTokens: (tokens) => (saved = tokens),
  tokens: () => saved,
}

const transport = () => new StreamableHTTPClientTransport(new URL(resource), { authProvider })
const client = new Client({ name: 'integration', version: '1.0.0' })

const first = transport()
await client.connect(first).then(
  () => { throw new Error('connected without a token') },
  (error) => { if (!(error instanceof UnauthorizedError)) throw error },
)
const answer = new URL(await hear()).searchParams
if (answer.get('state') !== state || answer.get('iss') !== issuer) throw new Error('the answer to another request')
await first.finishAuth(answer.get('code'))
say({ step: 'code', ...saved })

await client.connect(transport())
const { tools } = await client.listTools()
const result = await client.callTool({ name: tools[0].name, arguments: {} })
say({ step: 'call', text: result.content[0].text })

// The server refuses this token; the library gets another one, and calls again.
saved = { ...saved, access_token: 'ended' }
await client.callTool({ name: tools[0].name, arguments: {} })
say({ step: 'refresh', ...saved })
await client.close()
