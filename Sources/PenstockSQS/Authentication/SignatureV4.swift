// SPDX-License-Identifier: Apache-2.0
internal import Crypto

/// Finds out who has signed a request, by version 4 of AWS signatures.
///
/// Invariants
/// - I1: a credential is given out only for a request whose method, path, query, body, time and
///   signed headers are those that were signed with its secret, or whose body the client declared
///   unsigned.
/// - I2: no request, whatever its bytes, does more than fail itself; the work grows with its size
///   no faster than sorting does.
package enum SignatureV4 {
  static let service = "sqs"
  static let terminator = "aws4_request"
  /// How far the clocks of client and server may lie apart.
  static let maximumSkewSeconds = Int64(900)
  /// Headers that decide what a request does. Others may be added on the way.
  static let headersToSign = [
    "x-amz-content-sha256", "x-amz-date", "x-amz-security-token", "x-amz-target",
  ]

  static let mismatch = SQSError(
    .invalidSignature,
    "The request signature we calculated does not match the signature you provided. Check your "
      + "AWS Secret Access Key and signing method. Consult the service documentation for details.")
  static let unknownKey = SQSError(
    .unrecognizedClient, "The security token included in the request is invalid.")
  static let expiredToken = SQSError(
    .expiredToken, "The security token included in the request is expired.")

  /// The key that has signed a request; nil when the request is not signed at all.
  ///
  /// - Parameters:
  ///   - region: of the server; that of the signature must be the same.
  ///   - nowSeconds: the wall clock, since 1970.
  static func authenticate(
    _ request: SQSRequest, with store: CredentialStore, region: String, nowSeconds: Int64
  ) throws(SQSError) -> Credential? {
    let (path, query) = CanonicalRequest.parts(ofTarget: request.target)
    let parameters = CanonicalRequest.parameters(query)
    guard let claim = try SignatureClaim(request, parameters: parameters) else { return nil }
    guard let credential = store.credential(claim.scope.keyID) else { throw unknownKey }
    try checkToken(claim, credential, nowSeconds)
    try checkScope(claim, region)
    try checkTime(claim, nowSeconds)
    try checkSignedHeaders(claim, request)
    let canonical = try canonicalRequest(request, claim, path, parameters)
    let text = stringToSign(
      time: claim.time, region: claim.scope.region, canonicalHash: Hex.lowercase(digest(canonical)))
    let key = store.signingKey(of: credential, day: claim.scope.day, region: claim.scope.region)
    guard let signature = signatureBytes(claim.signature),
      // Takes the same time whatever the signature says.
      HMAC<SHA256>.isValidAuthenticationCode(
        signature, authenticating: Array(text.utf8), using: key)
    else { throw mismatch }
    return credential
  }

  static func canonicalRequest(
    _ request: SQSRequest, _ claim: SignatureClaim, _ path: ArraySlice<UInt8>,
    _ parameters: [CanonicalRequest.Parameter]
  ) throws(SQSError) -> [UInt8] {
    CanonicalRequest.bytes(
      method: request.method, path: CanonicalRequest.path(path),
      // No other form of a claim lets this parameter pass.
      query: CanonicalRequest.query(
        parameters.filter { !$0.name.elementsEqual("X-Amz-Signature".utf8) }),
      headers: try headers(claim, request), payload: try payload(request))
  }

  // MARK: Checks

  private static func checkToken(
    _ claim: SignatureClaim, _ credential: Credential, _ now: Int64
  ) throws(SQSError) {
    switch (credential.sessionToken, claim.token) {
    case (nil, nil): return
    case (let known?, let given?):
      // Digests compare in constant time.
      guard SHA256.hash(data: Array(known.utf8)) == SHA256.hash(data: Array(given.utf8)) else {
        throw unknownKey
      }
    default: throw unknownKey
    }
    if let end = credential.expiresAt, now >= end { throw expiredToken }
  }

  private static func checkScope(
    _ claim: SignatureClaim, _ region: String
  ) throws(SQSError) {
    guard claim.scope.day == claim.time.day else {
      throw SQSError(
        .invalidSignature,
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
          + "'\(SQSError.echo(claim.scope.day, 32))' != '\(claim.time.day)', "
          + "from '\(claim.time.basic)'.")
    }
    guard claim.scope.region == region else {
      throw SQSError(.invalidSignature, "Credential should be scoped to a valid region. ")
    }
    guard claim.scope.service == service else {
      throw SQSError(
        .invalidSignature, "Credential should be scoped to correct service: '\(service)'. ")
    }
    guard claim.scope.terminator == terminator else {
      throw SQSError(
        .invalidSignature,
        "Credential should be scoped with a valid terminator: '\(terminator)'.")
    }
  }

  private static func checkTime(_ claim: SignatureClaim, _ nowSeconds: Int64) throws(SQSError) {
    let now = SigningTime(seconds: nowSeconds)
    let validSeconds =
      if case .presigned(let seconds) = claim.form { seconds } else { maximumSkewSeconds }
    let earliest = SigningTime(seconds: now.seconds - validSeconds)
    let latest = SigningTime(seconds: now.seconds + maximumSkewSeconds)
    if claim.time < earliest {
      let width = validSeconds % 60 == 0 ? "\(validSeconds / 60) min." : "\(validSeconds) sec."
      throw SQSError(
        .invalidSignature,
        "Signature expired: \(claim.time.basic) is now earlier than \(earliest.basic) "
          + "(\(now.basic) - \(width))")
    }
    if claim.time > latest {
      throw SQSError(
        .invalidSignature,
        "Signature not yet current: \(claim.time.basic) is still later than \(latest.basic) "
          + "(\(now.basic) + 15 min.)")
    }
  }

  private static func checkSignedHeaders(
    _ claim: SignatureClaim, _ request: SQSRequest
  ) throws(SQSError) {
    guard claim.signedHeaders.contains("host") else {
      throw SQSError(
        .invalidSignature,
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    }
    for name in headersToSign {
      guard try SignatureClaim.single(name, request) != nil else { continue }
      guard claim.signedHeaders.contains(name) else {
        throw SQSError(
          .invalidSignature, "'\(name)' must be a 'SignedHeader' in the AWS Authorization.")
      }
    }
  }

  /// What stands for the body among what is signed: its hash, or that it is not signed.
  private static func payload(_ request: SQSRequest) throws(SQSError) -> String {
    guard let declared = try SignatureClaim.single("x-amz-content-sha256", request) else {
      return Digests.sha256(request.body)
    }
    if declared == "UNSIGNED-PAYLOAD" { return declared }
    // Anything else than a hash would leave the body free.
    guard declared.lowercased() == Digests.sha256(request.body) else { throw mismatch }
    return declared
  }

  /// A signed header that is not there is a header that was taken away.
  private static func headers(
    _ claim: SignatureClaim, _ request: SQSRequest
  ) throws(SQSError) -> [(name: String, value: [UInt8])] {
    var result: [(name: String, value: [UInt8])] = []
    result.reserveCapacity(claim.signedHeaders.count)
    for name in claim.signedHeaders {
      let values = request.headers.all(name)
      guard !values.isEmpty else { throw mismatch }
      result.append((name, CanonicalRequest.headerValue(values)))
    }
    return result
  }

  /// 32 bytes from 64 digits in lower case; nil for anything else.
  private static func signatureBytes(_ text: String) -> [UInt8]? {
    let digits = Array(text.utf8)
    guard digits.count == 64 else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(32)
    for position in stride(from: 0, to: 64, by: 2) {
      guard let high = JSONParser.hexDigit(digits[position]),
        let low = JSONParser.hexDigit(digits[position + 1])
      else { return nil }
      bytes.append(high << 4 | low)
    }
    return Hex.lowercase(bytes) == text ? bytes : nil
  }

  // MARK: Computations

  static func digest(_ bytes: [UInt8]) -> SHA256.Digest { SHA256.hash(data: bytes) }

  static func stringToSign(time: SigningTime, region: String, canonicalHash: String) -> String {
    "\(SignatureClaim.algorithm)\n\(time.basic)\n"
      + "\(time.day)/\(region)/\(service)/\(terminator)\n\(canonicalHash)"
  }

  static func signingKey(secret: String, day: String, region: String) -> SymmetricKey {
    var key = SymmetricKey(data: Array("AWS4\(secret)".utf8))
    for part in [day, region, service, terminator] {
      let code = HMAC<SHA256>.authenticationCode(for: Array(part.utf8), using: key)
      key = SymmetricKey(data: code)
    }
    return key
  }
}
