// SPDX-License-Identifier: Apache-2.0

/// Who sends a request.
struct Principal: Hashable, Sendable {
  enum Kind: Hashable, Sendable {
    /// Nobody has signed the request.
    case anonymous
    /// The account itself.
    case root
    /// A user of the account.
    case user
    /// A session of a role: `roleARN` is the role's own name.
    case session(roleARN: String)
  }

  var kind: Kind
  /// Twelve digits; empty for the anonymous.
  var account: String
  /// For example `arn:aws:iam::123456789012:user/alice`; empty for the anonymous.
  var arn: String
  /// What messages name as their sender.
  var id: String

  static let anonymous = Principal(kind: .anonymous, account: "", arn: "", id: "anonymous")

  static func root(of account: String, partition: String = "aws") -> Principal {
    Principal(
      kind: .root, account: account, arn: "arn:\(partition):iam::\(account):root", id: account)
  }
}
