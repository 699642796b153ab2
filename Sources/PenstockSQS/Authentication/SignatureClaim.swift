// SPDX-License-Identifier: Apache-2.0

/// What a request says of its signature, taken apart but not believed.
struct SignatureClaim {
  enum Form {
    case header
    /// In the query of the URL, valid for this many seconds.
    case presigned(validSeconds: Int64)
  }

  /// Five parts, joined with slashes on the wire.
  struct Scope {
    var keyID: String
    var day: String
    var region: String
    var service: String
    var terminator: String
  }

  static let algorithm = "AWS4-HMAC-SHA256"
  /// Clients sign a dozen. Each one costs a search among the request's headers.
  static let maximumSignedHeaders = 64
  static let maximumValidSeconds = Int64(604_800)

  var form: Form
  var scope: Scope
  /// In lower case and ascending order, each once.
  var signedHeaders: [String]
  /// As it came.
  var signature: String
  var time: SigningTime
  var token: String?

  /// The claim of a request; nil when it makes none.
  ///
  /// - Parameter parameters: of its query.
  init?(
    _ request: SQSRequest, parameters: [CanonicalRequest.Parameter]
  ) throws(SQSError) {
    let authorizations = request.headers.all("authorization")
    let isPresigned = parameters.contains { Self.presignedNames.contains($0.name) }
    if authorizations.isEmpty {
      guard isPresigned else { return nil }
      try self.init(query: parameters)
    } else {
      guard !isPresigned else {
        throw Self.incomplete(
          "A request is signed by the Authorization header or by its query, not by both.")
      }
      guard let authorization = authorizations.first, authorizations.count == 1 else {
        throw Self.incomplete("The Authorization header was sent more than once.")
      }
      try self.init(authorization: authorization, request)
    }
  }

  private static let presignedNames = [
    "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature",
  ].map { Array($0.utf8) }

  private init(authorization: String, _ request: SQSRequest) throws(SQSError) {
    let text = authorization.utf8.drop(while: Self.isBlank)
    let algorithm = text.prefix { !Self.isBlank($0) }
    guard algorithm.elementsEqual(Self.algorithm.utf8) else {
      throw Self.incomplete(
        "The Authorization header must begin with \(Self.algorithm), the only algorithm here.")
    }
    // In the order of `wanted`.
    var values: [String?] = [nil, nil, nil]
    let wanted = ["Credential", "Signature", "SignedHeaders"]
    let rest = text[algorithm.endIndex...]
    for part in rest.split(separator: UInt8(ascii: ",")) {
      let part = part.drop(while: Self.isBlank)
      if part.isEmpty { continue }
      guard let equals = part.firstIndex(of: UInt8(ascii: "=")) else {
        throw Self.incomplete(
          "The Authorization header has a part that is not a key=value pair (missing equal-sign).")
      }
      let name = part[..<equals]
      guard let place = wanted.firstIndex(where: { name.elementsEqual($0.utf8) }) else { continue }
      var value = part[part.index(after: equals)...]
      while let last = value.last, Self.isBlank(last) { value = value.dropLast() }
      guard values[place] == nil else {
        throw Self.incomplete("The Authorization header has '\(wanted[place])' more than once.")
      }
      values[place] = String(Substring(value))
    }
    guard let credential = values[0], let signature = values[1], let names = values[2],
      !credential.isEmpty, !names.isEmpty, !signature.isEmpty
    else {
      throw Self.incomplete(
        zip(wanted, values).filter { ($0.1 ?? "").isEmpty }
          .map { "Authorization header requires '\($0.0)' parameter." }.joined(separator: " "))
    }
    form = .header
    scope = try Self.scope(credential)
    signedHeaders = try Self.names(names)
    self.signature = signature
    time = try Self.time(request)
    token = try Self.single("x-amz-security-token", request)
  }

  private init(query: [CanonicalRequest.Parameter]) throws(SQSError) {
    var values: [String: String] = [:]
    let required = [
      "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders",
      "X-Amz-Date", "X-Amz-Expires",
    ]
    let wanted = required + ["X-Amz-Security-Token"]
    for parameter in query {
      guard let name = wanted.first(where: { parameter.name.elementsEqual($0.utf8) }) else {
        continue
      }
      let value = String(decoding: parameter.value, as: UTF8.self)
      guard values.updateValue(value, forKey: name) == nil else {
        throw Self.incomplete("The query has the parameter '\(name)' more than once.")
      }
    }
    func value(_ name: String) throws(SQSError) -> String {
      if let value = values[name], !value.isEmpty { return value }
      throw Self.incomplete(
        "AWS query-string parameters must include '\(name)'. Re-examine the query-string "
          + "parameters.")
    }
    guard try value("X-Amz-Algorithm") == Self.algorithm else {
      throw Self.incomplete("X-Amz-Algorithm must be \(Self.algorithm), the only one here.")
    }
    scope = try Self.scope(try value("X-Amz-Credential"))
    signedHeaders = try Self.names(try value("X-Amz-SignedHeaders"))
    signature = try value("X-Amz-Signature")
    time = try Self.basicTime(try value("X-Amz-Date"))
    let expires = try value("X-Amz-Expires")
    guard expires.utf8.allSatisfy((UInt8(ascii: "0")...UInt8(ascii: "9")).contains),
      let seconds = Int64(expires), (1...Self.maximumValidSeconds).contains(seconds)
    else {
      throw Self.incomplete(
        "X-Amz-Expires must be a number of seconds from 1 to \(Self.maximumValidSeconds).")
    }
    form = .presigned(validSeconds: seconds)
    token = values["X-Amz-Security-Token"]
  }

  static func incomplete(_ message: String) -> SQSError { SQSError(.incompleteSignature, message) }

  /// The value of a header that a request has once at most.
  static func single(_ name: String, _ request: SQSRequest) throws(SQSError) -> String? {
    let values = request.headers.all(name)
    guard values.count <= 1 else { throw incomplete("The header \(name) was sent more than once.") }
    return values.first
  }

  private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

  private static func scope(_ credential: String) throws(SQSError) -> Scope {
    let parts = credential.utf8.split(
      separator: UInt8(ascii: "/"), maxSplits: 5, omittingEmptySubsequences: false
    ).map { String(Substring($0)) }
    guard parts.count == 5, parts.allSatisfy({ !$0.isEmpty }) else {
      throw incomplete(
        "Credential must have exactly 5 slash-delimited elements, e.g. "
          + "keyid/date/region/service/term.")
    }
    return Scope(
      keyID: parts[0], day: parts[1], region: parts[2], service: parts[3], terminator: parts[4])
  }

  private static func names(_ list: String) throws(SQSError) -> [String] {
    let names = list.utf8.split(
      separator: UInt8(ascii: ";"), maxSplits: maximumSignedHeaders,
      omittingEmptySubsequences: false
    ).map { name in
      let isLower = name.allSatisfy { $0 < 0x80 && !(0x41...0x5a).contains($0) }
      return isLower ? String(Substring(name)) : Substring(name).lowercased()
    }
    guard names.count <= maximumSignedHeaders else {
      throw incomplete("SignedHeaders has more than \(maximumSignedHeaders) names.")
    }
    // As clients write them.
    let isAscending = zip(names, names.dropFirst()).allSatisfy {
      $0.utf8.lexicographicallyPrecedes($1.utf8)
    }
    if isAscending, names.first != "" { return names }
    guard names.allSatisfy({ !$0.isEmpty }), Set(names).count == names.count else {
      throw incomplete("SignedHeaders must name each header once, in a list like 'a;b;c'.")
    }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  private static func basicTime(_ text: String) throws(SQSError) -> SigningTime {
    if let time = SigningTime(basic: text) { return time }
    throw incomplete("Date must be in ISO-8601 'basic format', like 20260115T120000Z.")
  }

  private static func time(_ request: SQSRequest) throws(SQSError) -> SigningTime {
    if let text = try single("x-amz-date", request) { return try basicTime(text) }
    guard let text = try single("date", request) else {
      throw incomplete(
        "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    }
    if let time = SigningTime(http: text) { return time }
    return try basicTime(text)
  }
}
