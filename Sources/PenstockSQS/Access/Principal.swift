// SPDX-License-Identifier: Apache-2.0

/// Who sends a request.
package struct Principal: Hashable, Sendable {
  package enum Kind: Hashable, Sendable {
    /// Nobody has signed the request.
    case anonymous
    /// The account itself.
    case root
    /// A user of the account.
    case user
    /// A session of a role: `roleARN` is the role's own name.
    case session(roleARN: String)
    /// Another service, by its name: `sns.amazonaws.com`.
    case service(String)
  }

  package var kind: Kind
  /// Twelve digits; empty for the anonymous and for services.
  package var account: String
  /// For example `arn:aws:iam::123456789012:user/alice`; empty for the anonymous and for services.
  package var arn: String
  /// What messages name as their sender.
  package var id: String

  package init(kind: Kind, account: String, arn: String, id: String) {
    self.kind = kind
    self.account = account
    self.arn = arn
    self.id = id
  }

  package static let anonymous = Principal(kind: .anonymous, account: "", arn: "", id: "anonymous")

  package static func root(of account: String, partition: String = "aws") -> Principal {
    Principal(
      kind: .root, account: account, arn: "arn:\(partition):iam::\(account):root", id: account)
  }

  package static func service(_ name: String) -> Principal {
    Principal(kind: .service(name), account: "", arn: "", id: name)
  }
}
