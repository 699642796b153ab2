// SPDX-License-Identifier: Apache-2.0

/// Whether a request may be carried out.
package enum AccessDecision: Hashable, Sendable {
  /// The policy that forbids something by name.
  package enum Source: Hashable, Sendable { case queuePolicy, identityPolicy }

  case allowed
  /// Nothing allows it.
  case denied
  case deniedExplicitly(by: Source)

  /// What only principals of the queue's own account can do, whatever its policy says.
  static let ownerActions: Set<String> = [
    "AddPermission", "RemovePermission", "CreateQueue", "DeleteQueue", "ListQueues",
    "ListQueueTags", "SetQueueAttributes", "TagQueue", "UntagQueue", "StartMessageMoveTask",
    "ListMessageMoveTasks", "CancelMessageMoveTask",
  ]

  /// Decides.
  ///
  /// 1. What a policy denies is denied.
  /// 2. The owner's account may do what the principal's policy or the queue's allows; everything,
  ///    when the principal has no policy.
  /// 3. Everybody else needs the queue's policy. A principal of another account that has a policy
  ///    needs that one too.
  /// 4. The rest is denied.
  ///
  /// - Parameters:
  ///   - queuePolicy: nil for a queue without one.
  ///   - identityPolicy: nil for a principal without one.
  package static func decide(
    _ request: AccessRequest, queuePolicy: AccessPolicy?, identityPolicy: AccessPolicy?
  ) -> AccessDecision {
    let isSigned: Bool
    switch request.principal.kind {
    case .root, .user, .session: isSigned = true
    case .anonymous, .service: isSigned = false
    }
    // The two that concern no queue that is there.
    let hasQueue = request.action != "CreateQueue" && request.action != "ListQueues"
    let queue = hasQueue ? queuePolicy?.verdict(on: request) ?? .nothing : .nothing
    if queue == .denies { return .deniedExplicitly(by: .queuePolicy) }
    // Without a policy, a principal may do everything that somebody else does not guard.
    let identity = isSigned ? identityPolicy?.verdict(on: request) ?? .allows : .allows
    if identity == .denies { return .deniedExplicitly(by: .identityPolicy) }
    if isSigned, request.principal.account == request.owner {
      return identity == .allows || queue == .allows ? .allowed : .denied
    }
    guard !ownerActions.contains(request.action) else { return .denied }
    return identity == .allows && queue == .allows ? .allowed : .denied
  }

  /// The answer to a request that may not be carried out; nil for one that may.
  func error(for request: AccessRequest) -> SQSError? {
    let action = "sqs:" + request.action.lowercased()
    let reason: String
    switch self {
    case .allowed: return nil
    case .denied: reason = "because no identity-based policy allows the \(action) action"
    case .deniedExplicitly(by: .queuePolicy):
      reason = "with an explicit deny in a resource-based policy"
    case .deniedExplicitly(by: .identityPolicy):
      reason = "with an explicit deny in an identity-based policy"
    }
    let user =
      switch request.principal.kind {
      case .anonymous: "anonymous"
      case .service(let name): name
      case .root, .user, .session: request.principal.arn
      }
    return SQSError(
      .accessDenied,
      "User: \(user) is not authorized to perform: \(action) on resource: "
        + "\(SQSError.echo(request.resource, 1024)) \(reason)")
  }
}

/// An `SQSError` for those outside of this module, who cannot see that type.
package struct WireRefusal: Error, Hashable, Sendable {
  package var status: Int
  /// The code of the query protocol.
  package var code: String
  package var message: String

  package init(status: Int, code: String, message: String) {
    self.status = status
    self.code = code
    self.message = message
  }

  init(_ error: SQSError) {
    self.init(status: error.kind.status, code: error.kind.queryCode, message: error.message)
  }
}

extension AccessDecision {
  /// `error(for:)` as those outside of this module can see it.
  package func refusal(for request: AccessRequest) -> WireRefusal? {
    error(for: request).map { WireRefusal($0) }
  }
}
