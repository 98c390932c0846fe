"""Misprints and open points of the paper, and where its public code differs.

Each row has a test that shows the problem. The authors' code is named by what it does; none of it is copied.
"""

from typing import NamedTuple


class Erratum(NamedTuple):
    """One row: what is printed, what is wrong or open, how it is read here, what the default is, and the test."""

    where: str
    printed: str
    problem: str
    reading: str
    default: str
    test: str


# where | printed
# problem
# reading | default | test
TABLE = """
Eq. 6 | D(q || sum_j w_j p_j)
arguments reversed: with one-hot targets this divergence is infinite
KL(target || q), cross-entropy up to a constant | coarse_targets | test_eq_6_with_the_printed_order_is_infinite

Eq. 6 | the histogram is the training target
it minimises an upper bound of the up-sampled loss, not the loss
points (a) to (c) of bilinear_target | the up-sampled loss | test_eq_6_is_not_where_the_upsampled_loss_is_least

Sec. 3.2 | a C x n x n score map
the order of the channels is open
position outermost (the code), unlike PixelShuffle | patch_rearrange | test_patch_layout_is_not_pixel_shuffle

Eq. 7, 9 | + psi in Eq. 7, - E[psi] in Eq. 9
both cannot be energies
phi is a score and psi an energy in Eq. 9 | mean_field_update | test_eq_9_needs_phi_as_a_score

Fig. 3 | 28 x 28 on the feature map
the code's far ring reaches 16 cells to each side: 33 x 33
the code's radii and dilations | FEATURE_RINGS | test_the_far_ring_spans_33_cells

Eq. 10 | U reads the estimated probability map
the code max-pools scores, and reaches as far as the window
both are offered | HeadConfig.label_context = "max_pool" | test_the_two_label_contexts_differ

Eq. 11 | g = W phi
Algorithm 1 filters q, not phi
Algorithm 1 | guidance_crf filters q | test_filtering_scores_is_not_filtering_probabilities

Eq. 12 | sum over c of (Sigma + eps U)^-1 (I^c - mu^c)(I^c - mu^c)
a 3 x 3 inverse times scalars has no value in a scalar sum
the quadratic form of the guided filter | dense_weights | test_eq_12_channel_by_channel_is_another_filter

Eq. 12 | 1 / |w|^2
open at the border, where windows are cut
clipped, constant (to the letter), authors | border = "clipped" | test_the_three_borders_differ_at_the_border_only

Eq. 15 | k(I_i, I_j) = w_ij, summed over i < j
w_ij is not w_ji with clipped windows, and Algorithm 1 keeps j = i
D W is symmetric; F is what decreases | guidance_functional | test_algorithm_1_is_not_the_mean_field_of_eq_14

Algorithm 1 | q = exp(-phi) / Z with phi = phi^u - lambda m
with energies the Potts penalty would reward disagreement
phi is a score: q = exp(+phi) / Z | guidance_crf | test_the_printed_signs_reward_disagreement

Algorithm 1 | step 4 assigns phi^k
then step 1 of the next round reads an unset phi^(k+1)
phi^(k+1) | guidance_crf_steps | test_k_max_iterations_give_k_max_updates

Sec. 5 | the marginal distribution is up-sampled
the code up-samples scores; labels can differ
scores, so that the loss sees a log-softmax | head | test_upsampling_probabilities_can_change_the_label

Eq. 16 | dL/dg = W dL/dq
g and q are swapped, and W is not its own adjoint with clipped windows
dL/dq = W^T dL/dg = D W D^-1 dL/dg | guided_filter_adjoint | test_eq_16_to_the_letter_is_wrong_near_the_border

Eq. 17 | argmin sum log p
the minus is missing: this would be minimised by the worst model
- log p | regularised_objective | test_eq_17_without_the_minus_prefers_the_wrong_label

Eq. 17 | lambda
the weight of Algorithm 1 and the weight decay are both called lambda
weight and weight_decay | 2.0 and 1e-4 | test_the_two_lambdas_have_two_names

Sec. 7.1.2 | "ploy" strategy
its power is not given
0.9, as in the works cited | poly_rate(power=0.9) | test_the_power_of_the_schedule_matters

Sec. 7.1.2 | half of all pixels in each batch with larger loss
the code decides on a stride-4 grid, keeps 4 x 4 blocks and those whose point is ignored, and drops ties
both are offered | mined_loss(mining="pixel") | test_block_mining_keeps_other_pixels

code | epsilon
added to the covariance again at every iteration: eps, 2 eps, 3 eps
a bug, not copied | one epsilon | test_an_accumulating_epsilon_changes_the_result

code | batches
softmax and label product mix images and classes for more than one image
a bug, not copied | one image at a time | test_a_batch_of_two_images_mixes_them

code | mu is learnable (initialised by Potts)
it gets no gradient
the gradient is -lambda sum_i G_i g_i^T | guidance_crf_gradients | test_the_compatibility_has_a_gradient

code | aspect ratio in [4/5, 5/4]
scales both sides alike, so the aspect never changes
a bug, not copied | one side times sqrt(a), the other divided by it | test_scaling_both_sides_keeps_the_aspect

code | aspect ratio in [4/5, 5/4]
drawn from 0.80, 0.81, ..., 1.19: neither up to 5/4 nor centred
both ends, by the law of the scale | Augmentation.aspect = (4/5, 5/4) | test_the_code_draws_the_aspect_from_080_to_119

code | labels take the nearest pixel
pixel floor(x / scale), while the image is resized by pixel centres: labels lie half a pixel to the right and below
floor((x + 1/2) / scale), centres for both | Augmentation | test_the_authors_nearest_labels_lie_half_a_pixel_off

code | v = momentum v + rate gradient
the velocity holds the rates of earlier steps: under a falling rate another, lagging schedule
the rate outside v, as PyTorch has it | sgd_step | test_a_rate_inside_the_momentum_lags_behind_the_schedule

code | mIoU
sums over classes in truth or prediction, divides by classes in the truth
divide by the classes that were summed | mean_iou | test_the_code_s_divisor_can_exceed_one
"""

ERRATA = tuple(Erratum(*row.replace("\n", " | ").split(" | ")) for row in TABLE.strip().split("\n\n"))
