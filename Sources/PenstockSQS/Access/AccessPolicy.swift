// SPDX-License-Identifier: Apache-2.0

/// Why a text is no policy, and where.
package struct PolicyError: Error, Hashable, Sendable {
  package var message: String
  /// How many statements there are, when that is what is wrong.
  package var statements: Int?

  init(_ message: String, statements: Int? = nil) {
    self.message = message
    self.statements = statements
  }

  func at(_ place: String) -> PolicyError {
    PolicyError("\(place): \(message)", statements: statements)
  }
}

/// A policy document, read and ready to be asked.
///
/// Reading is strict: what is not understood is refused, because a policy that is half understood
/// may allow what it should not.
package struct AccessPolicy: Sendable {
  /// What the policy belongs to.
  package enum Kind: Sendable {
    /// To a queue: it says who may use the queue. The limits of the API hold.
    case queue
    /// To a principal: it says what the principal may use.
    case identity

    /// The longest document, as it came.
    var maximumBytes: Int {
      switch self {
      case .queue: 8192
      case .identity: 32 * 1024
      }
    }
  }

  /// What a policy says of a request.
  enum Verdict { case nothing, allows, denies }

  static let maximumStatements = 20
  static let maximumActions = 7
  static let maximumPrincipals = 50
  static let maximumConditions = 10

  /// The document without blanks: the same content, members in the order in which they came.
  package let text: String
  private let statements: [PolicyStatement]

  /// Reads a document.
  package init(_ text: String, _ kind: Kind) throws(PolicyError) {
    guard text.utf8.count <= kind.maximumBytes else {
      throw PolicyError(
        "the policy has \(text.utf8.count) bytes, max allowed is \(kind.maximumBytes)")
    }
    let bytes = Array(text.utf8)
    let root = try PolicyReader.parse(bytes)
    statements = try PolicyReader.statements(of: root, kind)
    self.text = String(decoding: PolicyReader.withoutBlanks(bytes), as: UTF8.self)
  }

  func verdict(on request: AccessRequest) -> Verdict {
    var verdict = Verdict.nothing
    for statement in statements {
      // A second statement that allows adds nothing.
      if statement.isAllow, case .allows = verdict { continue }
      guard statement.matches(request) else { continue }
      guard statement.isAllow else { return .denies }
      verdict = .allows
    }
    return verdict
  }
}

/// One statement: it concerns a request when all its parts do.
struct PolicyStatement: Sendable {
  var isAllow: Bool
  /// Nil in a policy that belongs to a principal.
  var principals: Choice<PrincipalPattern>?
  var actions: Choice<ActionPattern>
  /// Nil when it concerns whatever the policy belongs to.
  var resources: Choice<ARNPattern>?
  var conditions: [PolicyCondition]

  /// What matches one of a list; or, for the members that begin with `Not`, none of it.
  struct Choice<Pattern: Sendable>: Sendable {
    var patterns: [Pattern]
    var isInverted: Bool
  }

  func matches(_ request: AccessRequest) -> Bool {
    if let principals,
      principals.patterns.contains(where: { $0.matches(request.principal) })
        == principals.isInverted
    {
      return false
    }
    if actions.patterns.contains(where: { $0.matches(request.action) }) == actions.isInverted {
      return false
    }
    if let resources,
      resources.patterns.contains(where: { $0.matches(request.resource, for: request) })
        == resources.isInverted
    {
      return false
    }
    return conditions.allSatisfy { $0.holds(for: request) }
  }
}

/// Names of actions.
struct ActionPattern: Sendable {
  /// In lower case, without `sqs:`.
  private let name: [UInt8]

  /// Reads `*`, `sqs:SendMessage`, `SQS:Get*`. Nil for a pattern that no action of this service
  /// matches.
  init?(_ text: String) throws(PolicyError) {
    let pattern = try PolicyPattern(text, wildcards: true, variables: false, ignoresCase: true)
    guard let bytes = pattern.fixed, bytes != [Glob.anyRun] else {
      name = [Glob.anyRun]
      return
    }
    guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")), colon > 0, colon < bytes.count - 1
    else { throw PolicyError("\"\(SQSError.echo(text, 64))\" is not of the form sqs:Action") }
    guard Glob.matches(bytes[..<colon], "sqs"[...].utf8) else { return nil }
    name = Array(bytes[(colon + 1)...])
  }

  func matches(_ action: String) -> Bool {
    Glob.matches(name[...], action[...].utf8, ignoringCase: true)
  }
}

/// Whom a statement concerns.
enum PrincipalPattern: Sendable {
  /// Whoever it is, even without a signature.
  case anyone
  /// Anyone of an account.
  case account(String)
  /// One user, or one role with all its sessions, or one session.
  case arn(String)
  case service(String)

  /// Reads an element of `"AWS"`.
  init(aws text: String) throws(PolicyError) {
    if text == "*" {
      self = .anyone
      return
    }
    if AccountID.isValid(text) {
      self = .account(text)
      return
    }
    let parts = text.split(separator: ":", maxSplits: 5, omittingEmptySubsequences: false)
    guard parts.count == 6, parts[0] == "arn", !parts[1].isEmpty,
      parts[2] == "iam" || parts[2] == "sts", parts[3].isEmpty,
      AccountID.isValid(String(parts[4])), !parts[5].isEmpty,
      !text.utf8.contains(UInt8(ascii: "*")), !text.utf8.contains(UInt8(ascii: "?"))
    else {
      throw PolicyError(
        "\"\(SQSError.echo(text, 64))\" is neither *, an account nor the ARN of a user or role")
    }
    self = parts[2] == "iam" && parts[5] == "root" ? .account(String(parts[4])) : .arn(text)
  }

  /// Reads an element of `"Service"`.
  init(service text: String) throws(PolicyError) {
    guard !text.isEmpty,
      text.utf8.allSatisfy({ Alphabet.isNameByte($0) || $0 == UInt8(ascii: ".") })
    else { throw PolicyError("\"\(SQSError.echo(text, 64))\" is not the name of a service") }
    self = .service(text)
  }

  func matches(_ principal: Principal) -> Bool {
    switch self {
    case .anyone: return true
    case .account(let account): return Self.isSame(account, principal.account)
    case .arn(let arn):
      if case .session(let role) = principal.kind, Self.isSame(arn, role) { return true }
      return Self.isSame(arn, principal.arn)
    case .service(let name):
      if case .service(let other) = principal.kind { return Self.isSame(name, other) }
      return false
    }
  }

  /// Byte for byte: two strings are equal to Swift when they look the same.
  private static func isSame(_ left: String, _ right: String) -> Bool {
    left.utf8.elementsEqual(right.utf8)
  }
}

/// The rule for accounts.
enum AccountID {
  /// Twelve digits.
  static func isValid(_ text: String) -> Bool {
    text.utf8.count == 12 && text.utf8.allSatisfy { $0 &- UInt8(ascii: "0") < 10 }
  }
}
