// SPDX-License-Identifier: Apache-2.0
internal import Crypto

/// The outcome of a check in words that tests and fuzz targets can use.
package enum SignatureVerdict: Hashable, Sendable {
  case anonymous
  case signed(keyID: String)
  case refused(status: Int, type: String, code: String, message: String)

  /// Checks a request as `SignatureV4.authenticate` does.
  package init(
    _ request: SQSRequest, with store: CredentialStore, region: String = "us-east-1",
    nowSeconds: Int64
  ) {
    do throws(SQSError) {
      let credential = try SignatureV4.authenticate(
        request, with: store, region: region, nowSeconds: nowSeconds)
      self = credential.map { .signed(keyID: $0.keyID) } ?? .anonymous
    } catch {
      let type = error.kind.type.split(separator: "#").last.map(String.init) ?? ""
      self = .refused(
        status: error.kind.status, type: type, code: error.kind.queryCode, message: error.message)
    }
  }
}

extension SignatureV4 {
  /// The hash of what is signed of a request, in hexadecimal; nil when there is none.
  package static func canonicalHash(_ request: SQSRequest) -> String? {
    let (path, query) = CanonicalRequest.parts(ofTarget: request.target)
    let parameters = CanonicalRequest.parameters(query)
    guard let claim = try? SignatureClaim(request, parameters: parameters),
      let canonical = try? canonicalRequest(request, claim, path, parameters)
    else { return nil }
    return Hex.lowercase(digest(canonical))
  }

  /// In hexadecimal.
  package static func signingKeyText(secret: String, day: String, region: String) -> String {
    signingKey(secret: secret, day: day, region: region).withUnsafeBytes { Hex.lowercase($0) }
  }
}
