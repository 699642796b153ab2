// SPDX-License-Identifier: Apache-2.0
internal import Crypto

/// Parts of a request's way that are measured by themselves.
package enum HotPaths {
  /// How many parts of names a form has; 0 for one that is not well formed.
  package static func read(form request: SQSRequest) -> Int {
    do throws(SQSError) { return try Form(request).nodes.count } catch { return 0 }
  }

  /// The signature, in hexadecimal, that a request needs whose `Authorization` header has another;
  /// nil when it has none.
  package static func signature(of request: SQSRequest, secret: String) -> String? {
    // Why a claim cannot be read does not matter here: there is none to measure.
    guard let claim = try? SignatureClaim(request, parameters: []),
      let hash = SignatureV4.canonicalHash(request)
    else { return nil }
    let text = SignatureV4.stringToSign(
      time: claim.time, region: claim.scope.region, canonicalHash: hash)
    let key = SignatureV4.signingKey(
      secret: secret, day: claim.scope.day, region: claim.scope.region)
    return Hex.lowercase(
      HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: key))
  }
}
