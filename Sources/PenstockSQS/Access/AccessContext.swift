// SPDX-License-Identifier: Apache-2.0

/// Somebody wants to do something with a queue.
package struct AccessRequest: Sendable {
  package var principal: Principal
  /// The name of the permission: `SendMessage` for a batch too.
  package var action: String
  /// The queue's ARN.
  package var resource: String
  /// The account that the queue belongs to.
  package var owner: String
  package var context: AccessContext

  package init(
    principal: Principal, action: String, resource: String, owner: String, context: AccessContext
  ) {
    self.principal = principal
    self.action = action
    self.resource = resource
    self.owner = owner
    self.context = context
  }

  /// The permission that an action asks for: that of the single action for a batch.
  package static func actionName(of action: String) -> String {
    switch action {
    case "SendMessageBatch": "SendMessage"
    case "DeleteMessageBatch": "DeleteMessage"
    case "ChangeMessageVisibilityBatch": "ChangeMessageVisibility"
    default: action
    }
  }

  /// The permission that an action asks for.
  static func actionName(of action: Action) -> String { actionName(of: action.rawValue) }

  /// What the request says of this key.
  func value(of key: ContextKey) -> ContextValue {
    func value(_ text: String?) -> ContextValue { text.map { .one($0) } ?? .missing }
    switch key {
    case .currentTime: return .one(PolicyDate.text(context.time))
    case .epochTime: return .one(String(context.time / 1000))
    case .secureTransport: return value(context.isSecure.map { String($0) })
    case .sourceAccount: return value(context.sourceAccount)
    case .sourceARN: return value(context.sourceARN)
    case .sourceIP: return value(context.sourceIP)
    case .userAgent:
      guard let agent = context.userAgent else { return .missing }
      let limit = AccessContext.comparedOfUserAgent
      return .one(
        agent.utf8.count > limit ? String(agent.unicodeScalars.prefix(limit)) : agent)
    case .principalARN:
      if case .session(let role) = principal.kind { return .one(role) }
      return principal.arn.isEmpty ? .missing : .one(principal.arn)
    case .principalAccount:
      return principal.account.isEmpty ? .missing : .one(principal.account)
    case .principalOrgID: return value(context.principalOrgID)
    case .principalTag(let name): return value(Self.tag(name, in: context.principalTags))
    case .requestTag(let name): return value(Self.tag(name, in: context.requestTags))
    case .tagKeys:
      let names = context.requestTags.map(\.name) + context.tagKeys
      return names.isEmpty ? .missing : .many(names)
    case .sourceVPCE: return value(context.sourceVPCE)
    case .multiFactorAuthAge: return value(context.multiFactorAuthAge.map { String($0) })
    case .multiFactorAuthPresent:
      return value(context.isMultiFactorAuthPresent.map { String($0) })
    case .tokenIssueTime: return value(context.tokenIssueTime.map { PolicyDate.text($0) })
    case .other: return .missing
    }
  }

  /// Condition keys have no case, and the name of a tag is part of one.
  private static func tag(_ name: String, in tags: [(name: String, value: String)]) -> String? {
    tags.first { $0.name.lowercased().utf8.elementsEqual(name.utf8) }?.value
  }
}

/// What conditions may ask of a request. Nil stands for a key that the request does not have.
/// Nothing is put into text before a condition asks for it.
package struct AccessContext: Sendable {
  /// How many characters of a user agent are looked at: clients may send far more, and patterns
  /// take time.
  static let comparedOfUserAgent = 1024

  /// Milliseconds since 1970: `aws:CurrentTime` and `aws:EpochTime`.
  package var time: Int64
  /// The client's address, without a port.
  package var sourceIP: String?
  /// Whether the request came over TLS; nil where nobody wants to tell.
  package var isSecure: Bool?
  package var userAgent: String?
  /// The resource for which a service sends the request.
  package var sourceARN: String?
  /// The account for which a service sends the request.
  package var sourceAccount: String?
  package var sourceVPCE: String?
  package var principalOrgID: String?
  package var principalTags: [(name: String, value: String)] = []
  /// The tags that the request brings along.
  package var requestTags: [(name: String, value: String)] = []
  /// The tags that it names without values; those of `requestTags` count too.
  package var tagKeys: [String] = []
  /// In seconds.
  package var multiFactorAuthAge: Int?
  package var isMultiFactorAuthPresent: Bool?
  /// Milliseconds since 1970.
  package var tokenIssueTime: Int64?

  package init(time: Int64, sourceIP: String? = nil, isSecure: Bool? = nil) {
    self.time = time
    self.sourceIP = sourceIP
    self.isSecure = isSecure
  }
}

/// A condition key.
enum ContextKey: Hashable, Sendable {
  case currentTime, epochTime, secureTransport
  case sourceAccount, sourceARN, sourceIP, sourceVPCE, userAgent
  case principalARN, principalAccount, principalOrgID
  /// The name of the tag in lower case.
  case principalTag(String)
  /// The name of the tag in lower case.
  case requestTag(String)
  case tagKeys
  case multiFactorAuthAge, multiFactorAuthPresent, tokenIssueTime
  /// One that no request has.
  case other

  init(_ name: String) {
    let name = name.lowercased()
    self =
      switch name {
      case "aws:currenttime": .currentTime
      case "aws:epochtime": .epochTime
      case "aws:securetransport": .secureTransport
      case "aws:sourceaccount": .sourceAccount
      case "aws:sourcearn": .sourceARN
      case "aws:sourceip": .sourceIP
      case "aws:sourcevpce": .sourceVPCE
      case "aws:useragent": .userAgent
      case "aws:principalarn": .principalARN
      case "aws:principalaccount": .principalAccount
      case "aws:principalorgid": .principalOrgID
      case "aws:tagkeys": .tagKeys
      case "aws:multifactorauthage": .multiFactorAuthAge
      case "aws:multifactorauthpresent": .multiFactorAuthPresent
      case "aws:tokenissuetime": .tokenIssueTime
      default: Self.tag(name)
      }
  }

  private static func tag(_ name: String) -> ContextKey {
    let parts = name.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2 else { return .other }
    switch parts[0] {
    case "aws:principaltag": return .principalTag(String(parts[1]))
    case "aws:requesttag": return .requestTag(String(parts[1]))
    default: return .other
    }
  }
}

/// What a request says of a key.
enum ContextValue {
  case missing
  case one(String)
  /// At least one.
  case many([String])

  var isMissing: Bool {
    if case .missing = self { true } else { false }
  }
}
