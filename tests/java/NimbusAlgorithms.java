package partner;

import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSVerifier;
import com.nimbusds.jose.crypto.ECDSAVerifier;
import com.nimbusds.jose.crypto.Ed25519Verifier;
import com.nimbusds.jose.crypto.RSASSAVerifier;
import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.SignedJWT;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import java.net.URI;
import java.util.Map;
import java.util.Scanner;
import java.util.Set;
import net.minidev.json.JSONObject;

/** A resource server on Nimbus JOSE + JWT that reads the keys when it is told to. The key decides the algorithm. */
public class NimbusAlgorithms {
    public static void main(String[] arguments) throws Exception {
        var issuer = System.getenv("TENANT_AUTHORITY_URL");
        var claims = new DefaultJWTClaimsVerifier<SecurityContext>(
                System.getenv("CLOUD_API_URL"),
                new JWTClaimsSet.Builder().issuer(issuer).build(),
                Set.of("sub", "exp", "client_id", "tenant_id"));
        var type = new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt"));

        JWKSet keys = null;
        var input = new Scanner(System.in);
        while (input.hasNextLine()) {
            var line = input.nextLine();
            if (line.equals("keys")) {
                keys = JWKSet.load(URI.create(issuer + "/jwks.json").toURL());
                System.out.println(new JSONObject(Map.of("keys", keys.size())).toJSONString());
                continue;
            }
            try {
                var token = SignedJWT.parse(line);
                type.verify(token.getHeader().getType(), null);
                var key = keys.getKeyByKeyId(token.getHeader().getKeyID());
                if (!key.getAlgorithm().equals(token.getHeader().getAlgorithm()) || !token.verify(verifier(key))) {
                    throw new SecurityException("the signature is wrong");
                }
                claims.verify(token.getJWTClaimsSet(), null);
                var said = new JSONObject(token.getJWTClaimsSet().toJSONObject());
                said.put("accepted", true);
                System.out.println(said.toJSONString());
            } catch (Exception error) {
                System.out.println(new JSONObject(Map.of("accepted", false, "why", error.toString())).toJSONString());
            }
        }
    }

    private static JWSVerifier verifier(JWK key) throws Exception {
        return switch (key.getKeyType().getValue()) {
            case "OKP" -> new Ed25519Verifier(key.toOctetKeyPair());
            case "EC" -> new ECDSAVerifier(key.toECKey());
            default -> new RSASSAVerifier(key.toRSAKey());
        };
    }
}
